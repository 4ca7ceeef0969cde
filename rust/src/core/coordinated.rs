//! What the coordinator currently does for a client, as far as a worker must know it.

use crate::catalog::table::{Row, Table};
use crate::client::client::Client;
use crate::client::gate::Gate;
use crate::client::owed::Owed;

/// True if the client waits for other clients' commands.
pub(crate) fn waits(client: &Client, table: &Table) -> bool {
    coordinated(client, table).is_some_and(|row| row.traits.waits_for_others)
}

/// The command that the coordinator currently runs for a client.
fn coordinated<'t>(client: &Client, table: &'t Table) -> Option<&'t Row> {
    match client.owed.front() {
        Some(Owed::Waiting(row)) if client.gate == Gate::Coordinator => {
            Some(table.row(*row as usize))
        }
        _ => None,
    }
}
