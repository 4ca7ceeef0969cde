//! The database that SELECT names.

use crate::base::number::parse_i64;
use crate::resp::request::Args;

const NO_INT: &str = "ERR value is out of range, value must between -2147483648 and 2147483647";

/// The database that SELECT names, if there are this many; otherwise the error.
pub(crate) fn selected(args: Args, databases: u32) -> Result<u32, &'static str> {
    let index = parse_i64(args.get(1)).ok_or("ERR value is not an integer or out of range")?;
    let index = i32::try_from(index).map_err(|_| NO_INT)?;
    let db = u32::try_from(index).ok().filter(|db| *db < databases);
    db.ok_or("ERR DB index is out of range")
}
