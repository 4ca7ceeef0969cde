//! What the coordinator does for a client just now, as far as a worker must know.

use crate::catalog::table::{Row, Table};
use crate::client::client::Client;
use crate::client::gate::Gate;
use crate::client::owed::Owed;

/// These may wait for long, and what they answer then is newer than an invalidation of now.
const BLOCKING: [&[u8]; 11] = [
    b"blpop",
    b"brpop",
    b"blmove",
    b"brpoplpush",
    b"blmpop",
    b"bzpopmin",
    b"bzpopmax",
    b"bzmpop",
    b"xread",
    b"xreadgroup",
    b"wait",
];

/// True if the client waits for what others do.
pub(crate) fn waits(client: &Client, table: &Table) -> bool {
    coordinated(client, table).is_some_and(|row| BLOCKING.contains(&row.name.as_slice()))
}

/// What the coordinator does for a client now.
fn coordinated<'t>(client: &Client, table: &'t Table) -> Option<&'t Row> {
    match client.owed.front() {
        Some(Owed::Waiting(row)) if client.gate == Gate::Coordinator => {
            Some(table.row(*row as usize))
        }
        _ => None,
    }
}
