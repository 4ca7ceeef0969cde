//! Clients whose commands are not taken now, but who are read: a client may write everything before it
//! reads anything, and while it writes it does not read.
//!
//! ```text
//! replies not read (256 KB or more) ≥ bytes kept  ─►  read and keep, take no commands
//! bytes kept > replies not read                   ─►  take commands: their replies add up
//! ```
//! So neither waits for the other for ever, and both buffers together are at most twice the smaller of
//! what the client sends and what it is answered. Whoever is blocked, or paused, is read too:
//! only another client of the same application may end that.

use crate::client::{Client, Gate, OWED_LIMIT, UNREAD_LIMIT};
use crate::closing::Closing;
use crate::net::Io;
use crate::settings::Settings;
use crate::shared::ToCoordinator;
use crate::worker::{CLIENT_READ, Worker};

/// Bytes by which a client that has sent much is read at most.
pub(crate) const READ_MOST: usize = 4 * 1024 * 1024;

impl Worker {
    /// True if this client must be read although its commands are not taken.
    pub(crate) fn keeps_reading(&self, place: usize) -> bool {
        let client = &self.clients[place];
        if !client.readable
            || client.has_ended
            || !client.authenticated
            || client.closing != Closing::No
        {
            return false;
        }
        let settings = &self.shared.settings;
        match client.gate {
            Gate::Open | Gate::Subscribing | Gate::Upload => false,
            Gate::Pause => true,
            Gate::Coordinator => self.shared.table.row(client.last_command).blocks,
            _ => {
                let waits = client.gate == Gate::Output && client.unread() >= UNREAD_LIMIT;
                (waits || client.pauses_lane) && client.keeps_rather(client.rx.len(), settings)
            }
        }
    }

    /// Reads such a client once.
    pub(crate) fn keep(&mut self, place: usize) {
        let limit = self.shared.settings.input_limit();
        let client = &mut self.clients[place];
        let chunk = client.rx.len().clamp(CLIENT_READ, READ_MOST.min(limit / 4));
        let io = client.rx.read(&client.fd, chunk);
        self.note_read(place, io, chunk);
        if io == Io::Gone {
            // Its end is noticed again once its commands have been taken.
            self.clients[place].readable = true;
            self.clients[place].has_ended = true;
            return self.look_again(place);
        }
        self.account(place);
        let client = &mut self.clients[place];
        let mut cut = 0;
        if let Some(request) = &mut client.request {
            request.has_grown = true;
            cut = request.length_so_far();
        }
        if client.rx.len() - cut > limit {
            return self.sent_too_much(place);
        }
        if client.pauses_lane {
            self.read_paused_lanes_of(place);
        }
        self.look_again(place);
    }

    /// A client has closed its connection without having read everything. What it has sent is run, as by
    /// a server that reads faster than it answers; no reply is kept for that.
    pub(crate) fn has_left(&mut self, place: usize) {
        let client = &mut self.clients[place];
        if client.closing != Closing::No {
            return self.end_client(place);
        }
        client.is_deaf = true;
        client.hung_up = true;
        client.readable = true; // to the end
        self.mark_ready(place);
        self.mark_dirty(place);
    }

    /// What is kept of a client, or waits for it to read, is another number of bytes now: its commands
    /// may go on, or it must be read.
    pub(crate) fn look_again(&mut self, place: usize) {
        let client = &self.clients[place];
        if client.gate == Gate::Output && !client.is_behind(client.rx.len(), &self.shared.settings)
        {
            self.open_gate(place);
        } else if self.keeps_reading(place) {
            self.mark_ready(place);
        }
    }

    /// True if a command comes that is larger than that; in newer servers, with those between MULTI and
    /// EXEC.
    pub(crate) fn is_over_input_limit(&self, place: usize) -> bool {
        let client = &self.clients[place];
        let cut = client.request.as_ref().map_or(0, |request| request.length_so_far());
        let queued = match &client.multi {
            Some(multi) if self.shared.is_valkey => multi.size(),
            _ => 0,
        };
        let coming = client.rx.len() - cut;
        client.gate.takes_some() && coming + queued > self.shared.settings.input_limit()
    }

    /// More of one client would have to be kept than `client-query-buffer-limit`.
    pub(crate) fn sent_too_much(&mut self, place: usize) {
        self.counters.input_limit_disconnections += 1;
        let info = Box::new(self.describe(place));
        self.shared.coordinator.post(ToCoordinator::SentTooMuch(info));
        self.end_client(place);
    }

    /// Keeps the total of what clients have buffered.
    pub(crate) fn account(&mut self, place: usize) {
        let client = &mut self.clients[place];
        let bytes = client.buffered();
        self.buffered = self.buffered - client.accounted + bytes;
        client.accounted = bytes;
    }

    /// Over the budget: the client with the most buffered pays; one with NO-EVICT only if all have
    /// it, because memory must not grow without end.
    pub(crate) fn evict(&mut self) {
        let greediest = self.clients.iter().max_by_key(|(_, client)| {
            (client.closing != Closing::Now && !client.session.no_evict, client.accounted)
        });
        if let Some((place, _)) = greediest {
            self.counters.clients_evicted += 1;
            self.end_when_whole(place);
        }
    }
}

impl Client {
    /// Bytes of replies that it has not read.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.pending() + self.held
    }

    /// True if the `kept` bytes that it has sent should not be taken now.
    #[inline]
    #[must_use]
    pub fn is_behind(&self, kept: usize, settings: &Settings) -> bool {
        self.owed.len() >= OWED_LIMIT
            || self.unread() >= UNREAD_LIMIT && self.keeps_rather(kept, settings)
    }

    /// True if it reads so little that what it sends had better stay what it is: commands while
    /// these are fewer bytes than the replies that it has not read. So whoever writes everything
    /// before reading anything is read to the end, for the least memory.
    #[must_use]
    pub fn keeps_rather(&self, kept: usize, settings: &Settings) -> bool {
        let most = settings.input_limit() / 2;
        let is_less = kept <= self.unread() && kept < most;
        // Whoever sends nothing more may have left, and reads nothing before it has.
        let waits_for_reader = !self.has_ended || self.unread() >= most;
        !self.authenticated || (is_less && waits_for_reader)
    }
}
