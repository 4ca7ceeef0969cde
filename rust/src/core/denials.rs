//! Commands that ACL has denied in this turn, for ACL LOG.

use crate::client::session::ClientInfo;
use crate::core::worker::Worker;

impl Worker {
    /// Notes which client was denied which command in this turn.
    #[cold]
    pub(crate) fn note_denials(&mut self) {
        for (place, row) in std::mem::take(&mut self.denied) {
            if self.clients.get(place).is_some() {
                let name = &self.shared.table.row(row as usize).name;
                let command = String::from_utf8_lossy(name).into_owned();
                self.shared.denials.add(ClientInfo { command, ..self.describe(place) });
            }
        }
    }
}
