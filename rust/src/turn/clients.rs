//! Clients come and go: accepts, hands over and removes them, closes idle ones, stops.

use crate::client::client::Client;
use crate::client::closing::Closing;
use crate::client::confirmation::Confirmations;
use crate::client::gate::Gate;
use crate::client::session::{Monitor, Session};
use crate::core::worker::Worker;
use crate::lane::instance::InstanceState;
use crate::lane::lane::State;
use crate::net::poller::{KIND_CLIENT, KIND_LISTENER, event_data};
use crate::net::socket;
use crate::net::socket::Peer;
use crate::threads::letters::{Mail, ToCoordinator};
use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::sync::atomic::Ordering::Relaxed;

/// Connections accepted in one turn, so that a storm of them does not starve present clients.
const ACCEPT_BATCH: usize = 64;

const NOT_YET: &[u8] = b"-LOADING threadis: no instance is ready yet\r\n";

const TOO_MANY: &[u8] = b"-ERR max number of clients reached\r\n";

const PROTECTED: &[u8] = b"-DENIED thREaDIS is running in protected mode: no password is set, so \
    only this machine is served. Set requirepass, or start with --protected-mode no.\r\n";

impl Worker {
    /// Accepts the connections that wait at the listeners.
    pub(crate) fn accept(&mut self) {
        if !std::mem::take(&mut self.accept_waiting) {
            return;
        }
        let keepalive = self.shared.settings.tcp_keepalive.load(Relaxed);
        for place in 0..self.listeners.len() {
            // Still readable after a whole batch: there will be another event.
            let mut next = epoll::EventFlags::IN;
            for _ in 0..ACCEPT_BATCH {
                match self.listeners[place].accept(keepalive) {
                    Ok((fd, peer)) => self.welcome(fd, peer),
                    // Out of descriptors or memory: present clients go on, and the next tick tries
                    // again (the listener stays readable, so it is not watched until then).
                    Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                        next = epoll::EventFlags::empty();
                        break;
                    }
                    Err(Errno::AGAIN) => break,
                    Err(_) => {} // that connection is dead; the next one may be fine
                }
            }
            self.watch_listener(place, next);
        }
    }

    fn watch_listener(&self, place: usize, flags: epoll::EventFlags) {
        let data = event_data(KIND_LISTENER, place);
        let _ = epoll::modify(&self.epoll, &self.listeners[place].fd, data, flags);
    }

    /// Gives a new connection to the worker that currently takes new ones or, if many come at once,
    /// to the one with the fewest clients.
    fn welcome(&mut self, fd: OwnedFd, peer: Peer) {
        let settings = &self.shared.settings;
        if self.shared.connected.load(Relaxed) >= settings.maxclients.load(Relaxed) {
            self.counters.rejected_connections += 1;
            socket::write(&fd, TOO_MANY);
            return;
        }
        if !self.shared.users.are_known() {
            self.counters.rejected_connections += 1;
            socket::write(&fd, NOT_YET);
            return;
        }
        let is_protected = settings.protected_mode.load(Relaxed) && self.shared.users.is_open();
        if is_protected && !peer.is_local {
            self.counters.rejected_connections += 1;
            socket::write(&fd, PROTECTED);
            return;
        }
        self.counters.connections += 1;
        self.shared.connected.fetch_add(1, Relaxed);
        let doors = &self.shared.doors;
        let chosen = if settings.newcomers_room.load(Relaxed) > 0 {
            settings.newcomers_room.fetch_sub(1, Relaxed); // only this worker accepts
            settings.newcomers_worker.load(Relaxed).min(doors.len() - 1)
        } else {
            let fewest = (0..doors.len()).min_by_key(|&at| doors[at].clients.load(Relaxed));
            fewest.unwrap_or(self.index)
        };
        doors[chosen].clients.fetch_add(1, Relaxed);
        if chosen == self.index {
            self.add_client(fd, peer);
        } else {
            self.shared.rounds.note_handed();
            doors[chosen].mailbox.post(Mail::Accepted(fd, peer));
        }
    }

    fn add_client(&mut self, fd: OwnedFd, peer: Peer) {
        let instances = self.shared.instances;
        let user = self.shared.users.newcomer();
        let lane_set = self.lanes.set(State::default(), instances);
        self.last_generation = self.last_generation.wrapping_add(1);
        let now = self.now_seconds;
        let session = Session {
            id: self.shared.last_client_id.fetch_add(1, Relaxed) + 1,
            peer,
            user: user.name.clone(),
            verdict: None,
            name: Vec::new(),
            lib_name: Vec::new(),
            lib_version: Vec::new(),
            no_evict: false,
            queued_rows: Vec::new(),
            block: 0,
            exec_row: usize::MAX,
            exec_refusal: None,
            has_queue: false,
            can_redirect: false,
            created: now,
            last_active: now,
            commands: 0,
            not_run: 0,
            input_bytes: 0,
            read_by_all: 0,
            heard_by_all: 0,
            output_bytes: 0,
            cost_before: 0,
            lately: 0,
            over_since: None,
            withheld: 0,
            confirmations: Confirmations::new(),
            is_cut_off: false,
            monitor: Monitor::default(),
            tracking: None,
        };
        let authenticated = self.shared.users.is_open();
        let client = Client::new(fd, self.last_generation, lane_set, authenticated, session);
        let place = self.clients.insert(client);
        self.become_user(place, &user);
        let client = &self.clients[place];
        if epoll::add(&self.epoll, &client.fd, event_data(KIND_CLIENT, place), socket::READ)
            .is_err()
        {
            self.end_client(place);
        }
        self.mark_ready(place); // it may have sent something already
    }

    /// Closes a client's socket and removes the client. Its owed replies are dropped when they
    /// come.
    pub(crate) fn remove_client(&mut self, place: usize) {
        self.release(place);
        self.unsubscribe_all(place);
        self.end_monitoring(place);
        self.end_tracking(place);
        let key = self.key(place);
        let client = self.clients.remove(place);
        if client.gate == Gate::Pause {
            self.counters.clients_paused -= 1;
        }
        if client.notify_on_close {
            self.shared.coordinator.post(ToCoordinator::Gone(key));
        }
        if let Some(upload) = &client.upload {
            self.end_upload(upload);
        }
        if client.pauses_lane {
            self.read_paused_lanes();
        }
        self.buffered -= client.accounted;
        self.shared.connected.fetch_sub(1, Relaxed);
        self.shared.doors[self.index].clients.fetch_sub(1, Relaxed);
    }

    /// Reads the letters of other threads.
    pub(crate) fn read_mail(&mut self) {
        if !std::mem::take(&mut self.mail_rang) {
            return;
        }
        let letters = self.shared.clone().doors[self.index].mailbox.take();
        let is_all_told = self.hear_before(&letters);
        for letter in letters {
            match letter {
                Mail::Accepted(fd, peer) => self.add_client(fd, peer),
                Mail::Moved(client, state) => self.take_over(*client, state),
                Mail::Give { to, permille } => self.give(to, permille),
                Mail::Reply(key, reply, change) => self.coordinator_reply(key, reply, change),
                Mail::ScriptLines(key, lines) => self.keep_script_lines(key, lines),
                Mail::Run(key, queued, more, known, token, caching) => {
                    self.run_queued(key, &queued, more, known, token, caching);
                }
                Mail::Verdict(key, refusal, user) => self.judge(key, refusal, user.as_ref()),
                Mail::User(name, id) => self.user_changed(name, id),
                Mail::OpenToAll => self.open_to_all(),
                Mail::Lock(lock) => self.lock(lock),
                Mail::Unlock(token) => self.unlock(token),
                Mail::Doubt(lock) => self.doubt(lock),
                Mail::Locked(token) => self.commits.locked(token),
                Mail::Busy => {
                    self.give_up_waiting_commits();
                    self.wake_those_behind_locks();
                    self.wake_those_behind_scripts();
                }
                Mail::Instance(index, state) => self.instance_changed(index, state),
                Mail::ListClients(request, ids) => {
                    let is_meant =
                        |id| ids.as_ref().is_none_or(|ids| ids.binary_search(id).is_ok());
                    let meant = self.clients.iter().filter(|(_, one)| is_meant(&one.session.id));
                    let clients = meant.map(|(place, _)| self.describe(place)).collect();
                    self.shared.coordinator.post(ToCoordinator::Clients { request, clients });
                }
                Mail::Tally(request, reset) => {
                    let report = self.tally.report(&self.shared.table, reset);
                    self.shared.coordinator.post(ToCoordinator::Tally { request, report });
                }
                Mail::EndPause => self.end_pause(),
                Mail::Kill(ids, after_replies) => self.kill(&ids, after_replies),
                Mail::Confine { user, channels } => self.confine(&user, &channels),
                Mail::Subscribe { key, sequence, ticket, refused } => {
                    self.confirm_late(key, sequence, refused);
                    // Also for one who is gone: the coordinator waits for this to count again.
                    self.shared.coordinator.post(ToCoordinator::Subscribed(ticket));
                }
                Mail::Track(key, mode) => self.track(key, mode),
                Mail::Invalidate { origin, target, body } => {
                    self.tell_invalid(origin, target, body.as_deref());
                }
                Mail::BrokenRedirect(key) => self.redirect_is_broken(key),
                Mail::Lines(lines) => self.deliver_lines(&lines),
                Mail::Round => self.go_on_after_rounds(),
                Mail::Stop(grace) => self.stop(grace),
            }
        }
        self.coordinator_answered &= !is_all_told;
        self.read_messages();
    }

    fn instance_changed(&mut self, index: usize, state: InstanceState) {
        if self.instances[index] == state {
            return;
        }
        self.instances[index] = state;
        // Also for a Ready at another socket: these lanes lead to a process that has ended.
        for place in self.lanes.of_instance(index) {
            self.break_lane(place);
        }
    }

    fn kill(&mut self, ids: &[u64], after_replies: bool) {
        let wanted = self.clients.iter().filter(|(_, client)| ids.contains(&client.session.id));
        let places: Vec<usize> = wanted.map(|(place, _)| place).collect();
        for place in places {
            if after_replies {
                let client = &mut self.clients[place];
                if client.executing.is_some() {
                    // As on one server, the client gets no more replies of its transaction.
                    let next = client.next_sequence();
                    client.reply_mode.get_or_insert_default().switch_off(next);
                }
                self.end_after_replies(place);
            } else {
                self.end_when_whole(place);
            }
        }
    }

    /// Ends clients that sent nothing for `timeout` seconds, and lingering ones whose time is over.
    pub(crate) fn end_idle_clients(&mut self) {
        let timeout = self.shared.settings.timeout.load(Relaxed);
        let now = self.now_seconds;
        let is_over = self.stop_at.is_some_and(|at| self.now >= at);
        let mut ending = Vec::new();
        for (place, client) in &mut self.clients {
            client.weigh();
            let idle = now.saturating_sub(client.session.last_active);
            if idle > 0 {
                client.parked.shrink();
            }
            let is_idle = timeout > 0
                && idle > timeout
                && client.owed.is_empty()
                && client.subscriptions.is_none()
                && !client.session.monitor.is_on;
            let is_over_limit = client.is_over(&self.shared.settings.output_limits, now);
            let has_lingered = matches!(client.closing, Closing::Lingering(until) if now >= until);
            if is_idle || has_lingered || is_over || is_over_limit {
                ending.push(place);
            }
        }
        for place in ending {
            if is_over {
                self.end_client(place);
            } else {
                self.end_when_whole(place);
            }
        }
    }

    fn stop(&mut self, grace_milliseconds: u64) {
        // The supervisor shares these sockets: closing this copy alone would not end the events.
        for listener in self.listeners.drain(..) {
            let _ = epoll::delete(&self.epoll, &listener.fd);
        }
        self.accept_waiting = false;
        self.stop_at = Some(self.now + grace_milliseconds * 1_000_000);
        self.next_tick = self.next_tick.min(self.now + grace_milliseconds * 1_000_000);
        let places: Vec<usize> = self.clients.iter().map(|(place, _)| place).collect();
        for place in places {
            self.end_after_replies(place);
        }
    }
}
