//! Answers a command at once.

use crate::core::worker::Worker;
use crate::resp::reply::push_error;

impl Worker {
    /// Answers `-<message>`.
    pub(crate) fn refuse(&mut self, place: usize, message: &str) {
        self.answer_error(place, message.as_bytes());
    }

    pub(crate) fn answer_error(&mut self, place: usize, message: &[u8]) {
        self.tally.note_error(message);
        let mut reply = Vec::with_capacity(message.len() + 3);
        push_error(&mut reply, message);
        self.answer(place, &reply);
    }

    /// Answers a command at once; the reply goes after all that the client is already owed.
    pub(crate) fn answer(&mut self, place: usize, reply: &[u8]) {
        self.clients[place].answer(reply);
        self.mark_dirty(place);
    }
}
