//! Ends a client's connection: at once, after its owed replies, or after its transaction.

use crate::client::closing::Closing;
use crate::client::gate::Gate;
use crate::client::input::Input;
use crate::core::worker::Worker;
use crate::net::socket;
use crate::net::socket::Io;

/// Seconds for which a connection lingers after the last reply.
const LINGER_SECONDS: u64 = 1;

impl Worker {
    /// Ends a client at the end of this turn.
    pub(crate) fn end_client(&mut self, place: usize) {
        self.clients[place].closing = Closing::Now;
        self.ending.push(place);
    }

    /// Half-closes the connection of a client that has been sent all its replies. Waits for the
    /// client to close its half only if the client may still be sending.
    pub(crate) fn say_goodbye(&mut self, place: usize) {
        let client = &mut self.clients[place];
        if !client.readable && !client.session.is_cut_off {
            self.end_client(place);
            return;
        }
        if rustix::net::shutdown(&client.fd, rustix::net::Shutdown::Write).is_err() {
            self.end_client(place);
            return;
        }
        client.closing = Closing::Lingering(self.now_seconds + LINGER_SECONDS + 1);
        self.mark_ready(place);
    }

    /// Discards what a client sends after its connection was half-closed, or is about to be: such a
    /// client reads its last replies only once it has written everything.
    pub(crate) fn discard_input(&mut self, place: usize) {
        let client = &mut self.clients[place];
        self.scratch.clear();
        match socket::read(&client.fd, &mut self.scratch, crate::core::worker::CLIENT_READ) {
            Io::Gone if matches!(client.closing, Closing::Lingering(_)) => self.end_client(place),
            Io::Gone | Io::Later => client.readable = false,
            Io::Moved(_) => {
                client.session.is_cut_off = true;
                self.mark_ready(place);
            }
        }
    }

    /// Ends a client once all its owed replies are written; takes no more commands from it.
    pub(crate) fn end_after_replies(&mut self, place: usize) {
        let client = &mut self.clients[place];
        if client.executing.is_some() {
            if client.closing_then == Closing::No {
                client.closing_then = Closing::AfterReplies;
            }
            return self.mark_ready(place);
        }
        if client.closing == Closing::No {
            client.closing = Closing::AfterReplies;
            client.rx = Input::default();
            client.request = None;
            self.mark_dirty(place);
        }
    }

    /// Answers a protocol error, and ends the client. The client may still be sending: if the
    /// socket were closed before that data arrived, the client would lose the error reply.
    #[cold]
    pub(crate) fn end_after_protocol_error(&mut self, place: usize, error: &[u8]) {
        self.counters.protocol_errors += 1;
        self.answer_error(place, &[b"ERR Protocol error: ", error].concat());
        self.clients[place].session.is_cut_off = true;
        self.end_after_replies(place);
    }

    /// Ends a client at the end of this turn, or once its transaction has run; it gets no reply to
    /// that.
    pub(crate) fn end_when_whole(&mut self, place: usize) {
        let client = &self.clients[place];
        let row = client.last_command;
        let is_exec = client.gate == Gate::Coordinator
            && row < self.shared.table.len()
            && self.shared.table.row(row).is_exec();
        if client.executing.is_none() && !is_exec {
            return self.end_client(place);
        }
        let client = &mut self.clients[place];
        client.closing_then = Closing::Now;
        client.is_deaf = true;
        self.mark_dirty(place);
    }

    /// Ends a client whose end was put off until its transaction had run.
    pub(crate) fn end_as_told(&mut self, place: usize) {
        match std::mem::replace(&mut self.clients[place].closing_then, Closing::No) {
            Closing::Now => self.end_client(place),
            Closing::AfterReplies => self.end_after_replies(place),
            _ => {}
        }
    }
}
