//! Commands that a worker has begun: they are answered here after all, or handed over to the
//! coordinator.

use crate::base::client_key::ClientKey;
use crate::base::step::Step;
use crate::client::closing::Closing;
use crate::client::gate::Gate;
use crate::client::owed::Owed;
use crate::client::queued::Queued;
use crate::client::session::ClientInfo;
use crate::core::worker::Worker;
use crate::lane::lane::Expect;
use crate::resp::encode::words;
use crate::resp::reply::is_error;
use crate::resp::request::{Args, with_args};
use crate::tables::pause;
use crate::threads::letters::{Change, ToCoordinator};
use std::sync::atomic::Ordering::Relaxed;

impl Worker {
    /// True if neither the client's state nor the current settings require more than running the
    /// command.
    pub(crate) fn may_run_here(&self, place: usize) -> bool {
        let (client, settings) = (&self.clients[place], &self.shared.settings);
        client.executing.is_none()
            && !client.is_restricted
            && client.subscriptions.is_none()
            && settings.pause.load(Relaxed) == pause::NONE
            && settings.busy().is_none()
            && !settings.tight.load(Relaxed)
            && !settings.log_all.load(Relaxed)
            && !self.shared.placement.has_pins()
            && !self.shared.tracking.is_on()
            && !self.is_monitored()
    }

    /// Answers a command that was taken; all earlier commands were answered.
    pub(crate) fn answer_owed(&mut self, expect: Expect, reply: &mut Vec<u8>) {
        let place = expect.client as usize;
        let Some(client) = self.clients.get_mut(place) else { return };
        if client.generation != expect.generation {
            return;
        }
        if is_error(reply)
            && let Some(owed) = client.owed_at(expect.sequence)
        {
            self.tally.failed(owed.row() as usize, reply);
        }
        client.put_from(expect.sequence, reply);
        client.settle(&self.lanes.received);
        self.open_gate(place);
        self.mark_dirty(place);
    }

    /// The coordinator will answer this client, and counts its command; `None` if the client has
    /// left.
    pub(crate) fn give_back(&mut self, expect: Expect) -> Option<usize> {
        let place = expect.client as usize;
        let client = self.clients.get_mut(place)?;
        if client.generation != expect.generation || client.closing == Closing::Now {
            return None;
        }
        if let Some(owed) = client.owed_at(expect.sequence) {
            self.tally.not_called(owed.row() as usize);
        }
        client.gate = Gate::Coordinator;
        client.notify_on_close = true;
        Some(place)
    }

    /// Undoes the taking of a client's last `count` commands: they will be taken again.
    pub(crate) fn take_again(&mut self, expect: Expect, count: usize, raw: Vec<u8>) {
        let Some(client) = self.clients.get_mut(expect.client as usize) else { return };
        if client.generation != expect.generation || count == 0 {
            return;
        }
        for _ in 0..count {
            if let Some(owed) = client.owed.pop_back() {
                self.tally.not_called(owed.row() as usize);
            }
        }
        client.rx.put_before(raw);
        client.request = None; // `request` is cut anew, too
        self.account(expect.client as usize);
    }

    /// Lets the coordinator run what was given back, `length` bytes of commands. The client's
    /// rights were checked before the command waited, if at all, so it is marked as if this worker
    /// knew of no change of rights since then.
    pub(crate) fn give_to_coordinator(
        &mut self,
        place: usize,
        length: usize,
        args: Vec<Vec<u8>>,
        queued: Option<Queued>,
    ) {
        let info = ClientInfo { query_bytes: length, rights: 0, ..self.describe(place) };
        self.shared.coordinator.post(ToCoordinator::Command {
            key: self.key(place),
            info: Box::new(info),
            args,
            queued,
            token: None,
            is_question: false,
        });
        if self.clients[place].hung_up {
            self.shared.coordinator.post(ToCoordinator::HungUp(self.key(place)));
        }
        self.look_again(place); // it may be blocked for long, and may send more meanwhile
    }

    /// The coordinator has answered. The reply is empty if the client left while its command
    /// waited.
    pub(crate) fn coordinator_reply(&mut self, key: ClientKey, mut reply: Vec<u8>, change: Change) {
        let Some(client) = self.clients.get_mut(key.place) else {
            return;
        };
        if client.generation != key.generation {
            return;
        }
        self.coordinator_answered = true;
        if let Some(watching) = change.watching {
            client.is_watching = watching;
        }
        if change.monitoring {
            self.begin_monitoring(key.place);
        }
        let has_run =
            !reply.starts_with(b"-") && !reply.starts_with(b"_") && !reply.starts_with(b"*-");
        if self.clients[key.place].executing.is_none() {
            self.show_kept(key.place, has_run);
        }
        if let Some(db) = change.db {
            self.change_state(key.place, |state| state.db = db);
        }
        let client = &mut self.clients[key.place];
        if let Some(Owed::Waiting(_)) = client.owed.front() {
            let refusal = self.clients[key.place].session.exec_refusal.take();
            match refusal.filter(|_| !reply.is_empty()) {
                Some(text) => self.refuse_exec(key.place, &text, &mut reply),
                None => self.count_answered(key.place, &reply),
            }
            let client = &mut self.clients[key.place];
            if reply.is_empty() && change.monitoring {
                // It was in MONITOR before, and gets no reply.
                client.pop_front();
                self.open_gate(key.place);
                return self.mark_dirty(key.place);
            }
            if reply.is_empty() {
                // The client left while its command waited: commands that it sent after it do not
                // run.
                client.pop_front();
                client.gate = Gate::Open;
                self.end_after_replies(key.place);
                return self.mark_dirty(key.place); // it may have been ending already
            }
            client.hold(client.front, reply);
            client.settle(&self.lanes.received);
            self.open_gate(key.place);
            if self.clients[key.place].executing.is_none() {
                self.end_as_told(key.place);
            }
            self.mark_dirty(key.place);
        }
    }

    pub(crate) fn route_to_coordinator(&mut self, place: usize, args: Args) -> Step {
        if self.must_drain(place) {
            return Step::Blocked;
        }
        self.send_to_coordinator(place, args, None);
        Step::Done
    }

    /// Sends a command to the coordinator; this client's next commands wait until it is answered.
    pub(crate) fn send_to_coordinator(&mut self, place: usize, args: Args, queued: Option<Queued>) {
        let letter = ToCoordinator::Command {
            key: self.key(place),
            info: Box::new(ClientInfo { query_bytes: args.raw.len(), ..self.describe(place) }),
            args: args.iter().map(<[u8]>::to_vec).collect(),
            queued,
            token: self.clients[place].executing.as_ref().map(|executing| executing.token),
            is_question: false,
        };
        let client = &mut self.clients[place];
        client.owe(Owed::Waiting(client.last_row()));
        client.gate = Gate::Coordinator;
        client.notify_on_close = true;
        let hung_up = client.hung_up;
        let row = self.shared.table.row(client.last_command);
        if row.blocks {
            let db = self.lanes.state(client.lane_set).db;
            self.shared.blocking_keys.announce(self.key(place), db, row, args);
        }
        self.shared.coordinator.post(letter);
        if hung_up {
            self.shared.coordinator.post(ToCoordinator::HungUp(self.key(place)));
        }
    }

    /// Hands the command over to the coordinator, where it waits.
    pub(crate) fn leave_waiting(&mut self, expect: Expect, command: &[u8]) {
        let Some(place) = self.give_back(expect) else { return };
        let row = self.shared.table.row(self.clients[place].last_command);
        with_args(command, |args| {
            self.shared.blocking_keys.announce(self.key(place), self.db(place), row, args);
        });
        let args = words(command);
        self.give_to_coordinator(place, command.len(), args, None);
    }
}
