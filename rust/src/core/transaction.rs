//! Refuses or spoils a transaction.

use crate::client::transaction::Multi;
use crate::core::worker::Worker;
use crate::resp::reply::push_error;

impl Worker {
    /// A command was refused while others are queued for EXEC: EXEC will be refused.
    pub(crate) fn spoil_multi(&mut self, place: usize) {
        if let Some(multi) = &mut self.clients[place].multi {
            if self.shared.keeps_queue {
                **multi = Multi::default();
            }
            multi.is_spoilt = true;
        }
    }

    /// The coordinator has ended the watch of a refused EXEC: answers with the reason.
    pub(crate) fn refuse_exec(&mut self, place: usize, text: &[u8], reply: &mut Vec<u8>) {
        let client = &mut self.clients[place];
        client.session.queued_rows.clear();
        client.session.not_run += 1;
        self.tally.rejected(client.session.exec_row);
        self.tally.note_error(text);
        reply.clear();
        push_error(reply, text);
    }
}
