//! Input from clients: how many bytes are read, kept and counted.

use crate::client::client::UNREAD_LIMIT;
use crate::client::closing::Closing;
use crate::client::gate::Gate;
use crate::core::worker::{CLIENT_READ, Worker};
use crate::net::socket::Io;
use crate::threads::letters::ToCoordinator;

impl Worker {
    pub(crate) fn note_read(&mut self, place: usize, io: Io, chunk: usize) {
        let client = &mut self.clients[place];
        let read = if let Io::Moved(read) = io { read } else { 0 };
        // After a short read the socket is empty: the next byte raises a new edge. After a hang-up
        // there will be no edge, so it must be read to the end.
        client.readable = read >= chunk || (client.hung_up && io != Io::Later);
        if io != Io::Later {
            client.session.last_active = self.now_seconds;
        }
        client.session.input_bytes += read as u64;
        self.counters.net_input_bytes += read as u64;
    }

    /// True if this client must be read although its commands are not taken now.
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

    /// Reads such a client once, and keeps what it sent.
    pub(crate) fn keep(&mut self, place: usize) {
        let limit = self.shared.settings.input_limit();
        let client = &mut self.clients[place];
        let chunk = client.rx.len().clamp(CLIENT_READ, READ_MOST.min(limit / 4));
        let io = client.rx.read(&client.fd, chunk);
        self.note_read(place, io, chunk);
        if io == Io::Gone {
            // The end is noticed again once the client's commands have been taken.
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

    /// A client has closed its connection without having read everything. Its commands still run,
    /// as on a server that reads faster than it answers; their replies are dropped.
    pub(crate) fn has_left(&mut self, place: usize) {
        let client = &mut self.clients[place];
        if client.closing != Closing::No {
            return self.end_client(place);
        }
        client.is_deaf = true;
        client.hung_up = true;
        client.readable = true; // read to the end
        self.mark_ready(place);
        self.mark_dirty(place);
    }

    /// The bytes kept for a client, or waiting for it to read, have changed: take its commands
    /// again, or read it.
    pub(crate) fn look_again(&mut self, place: usize) {
        let client = &self.clients[place];
        if client.gate == Gate::Output && !client.is_behind(client.rx.len(), &self.shared.settings)
        {
            self.open_gate(place);
        } else if self.keeps_reading(place) {
            self.mark_ready(place);
        }
    }

    /// True if the client's next command is larger than the input limit; newer servers count the
    /// commands queued between MULTI and EXEC, too.
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

    /// A client has sent more than `client-query-buffer-limit` allows to be kept.
    pub(crate) fn sent_too_much(&mut self, place: usize) {
        self.counters.input_limit_disconnections += 1;
        let info = Box::new(self.describe(place));
        self.shared.coordinator.post(ToCoordinator::SentTooMuch(info));
        self.end_client(place);
    }

    /// Updates the total of bytes that are buffered for clients.
    pub(crate) fn account(&mut self, place: usize) {
        let client = &mut self.clients[place];
        let bytes = client.buffered();
        self.buffered = self.buffered - client.accounted + bytes;
        client.accounted = bytes;
    }

    /// Over the memory limit for clients: ends the client with the most bytes buffered. A client
    /// with NO-EVICT is ended only if all have it, because memory must not grow without end.
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

/// Most bytes that are read at once from a client that has sent much.
pub(crate) const READ_MOST: usize = 4 * 1024 * 1024;
