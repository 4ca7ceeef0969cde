//! Users of the clients, and the checks of their rights before a command runs.
//!
//! ```text
//! unrestricted users   share lanes that may do everything; nothing is checked
//! restricted users     one key's commands: a lane of their own user, whose server decides
//!                      all others: the coordinator is asked first, then the command is taken again
//! AUTH, HELLO … AUTH   the coordinator is always asked
//! ```

use crate::base::client_key::ClientKey;
use crate::base::step::Step;
use crate::catalog::table::{Route, Row, Verb};
use crate::client::client::Client;
use crate::client::gate::Gate;
use crate::client::queued::Queued;
use crate::client::session::Verdict;
use crate::core::worker::Worker;
use crate::resp::request::Args;
use crate::routing::owner::{Owner, has_special_word, owner};
use crate::tables::users::User;
use crate::threads::letters::ToCoordinator;
use crate::threads::shared::Shared;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Release;

impl Worker {
    /// What to do instead of running a command, if it must be checked first: one of a restricted
    /// user, a login, or one that may lack memory where that must be known before.
    #[cold]
    pub(crate) fn ask_first(
        &mut self,
        place: usize,
        row: &Row,
        args: Args,
        shared: &Shared,
    ) -> Option<Step> {
        let is_monitored = self.is_monitored();
        let client = &mut self.clients[place];
        let in_multi = client.multi.is_some();
        let is_queued = in_multi && !row.ends_multi;
        let is_login = !is_queued
            && match row.route {
                Route::Session(Verb::Auth) => true,
                Route::Session(Verb::Hello) => {
                    !client.authenticated
                        || args.iter().any(|arg| arg.eq_ignore_ascii_case(b"AUTH"))
                }
                _ => false,
            };
        // Without memory, a server may refuse any command between MULTI and EXEC that does not end
        // it.
        let may_be_full = in_multi && !row.ends_transaction() && shared.may_lack_memory(row);
        let needs_right = client.is_restricted && !row.no_auth;
        let may_be_refused = (is_queued || is_monitored) && !row.no_auth && shared.may_refuse(row);
        let is_exempt = !is_login && !may_be_full && !needs_right && !may_be_refused;
        if is_exempt {
            return None;
        }
        match client.session.verdict.take() {
            Some(Verdict::Refused(reply)) if row.is_exec() && client.is_watching => {
                let text = reply.strip_prefix(b"-").unwrap_or(&reply).trim_ascii_end();
                let taken = self.end_watch_first(place, args, text);
                if taken == Step::Blocked {
                    self.clients[place].session.verdict = Some(Verdict::Refused(reply));
                }
                return Some(taken);
            }
            Some(Verdict::Refused(reply)) => {
                self.tally.called(client.last_command);
                self.tally.failed(client.last_command, &reply);
                let before = self.answered_bytes(place);
                self.answer(place, &reply);
                // SORT runs, and its options are checked then.
                if is_monitored && (is_login || reply.starts_with(b"-ERR ")) {
                    self.show(place, row, args);
                }
                if is_login {
                    self.log(place, args, before);
                }
                if row.is_exec() {
                    self.clients[place].multi = None;
                }
                self.spoil_multi(place);
                return Some(Step::Done);
            }
            Some(Verdict::Allowed) => {
                client.session.verdict = Some(Verdict::Allowed);
                return None;
            }
            None => {}
        }
        if is_login && self.must_drain(place) {
            return Some(Step::Blocked);
        }
        // Between MULTI and EXEC servers use another error text.
        let executing = self.clients[place].executing.as_ref().map(|executing| executing.token);
        // Also, no client may get invalidations of a key that it may not read, or see what does not
        // run.
        let is_noticed = is_monitored || self.is_remembered(place, row);
        let may_go = !is_login && !is_queued && executing.is_none() && !is_noticed;
        if may_go && self.is_judged_by_lane(place, row, args, shared) {
            return None;
        }
        let letter = ToCoordinator::Command {
            key: self.key(place),
            info: Box::new(self.describe(place)),
            args: args.iter().map(<[u8]>::to_vec).collect(),
            queued: (is_queued || may_be_full).then(Queued::default),
            token: executing,
            is_question: true,
        };
        self.clients[place].gate = Gate::Coordinator;
        self.shared.coordinator.post(letter);
        Some(Step::Blocked)
    }

    /// True if the command goes unchanged to one instance, on the lane of the client's user.
    fn is_judged_by_lane(&self, place: usize, row: &Row, args: Args, shared: &Shared) -> bool {
        match row.route {
            Route::Any => true,
            Route::Keys => {
                let goes_elsewhere = has_special_word(row, args)
                    || matches!(
                        owner(row, args, self.db(place), &shared.placement),
                        Owner::Several
                    )
                    || self.concerns_a_wait(place, row, args);
                !goes_elsewhere
            }
            _ => false,
        }
    }

    /// The coordinator has answered: the command is taken again.
    pub(crate) fn judge(&mut self, key: ClientKey, refusal: Option<Vec<u8>>, user: Option<&User>) {
        let Some(client) = self.clients.get_mut(key.place) else {
            return;
        };
        if client.generation != key.generation || client.gate != Gate::Coordinator {
            return;
        }
        client.session.verdict = Some(refusal.map_or(Verdict::Allowed, Verdict::Refused));
        if let Some(user) = user {
            client.authenticated = true;
            self.become_user(key.place, user);
        }
        self.open_gate(key.place);
    }

    /// Makes a client one of this user.
    pub(crate) fn become_user(&mut self, place: usize, user: &User) {
        let client = &mut self.clients[place];
        client.session.user = Arc::clone(&user.name);
        client.is_restricted = user.id != 0;
        self.change_state(place, |state| state.user = user.id);
    }

    /// A user's rights have changed; or the user was deleted, and its clients are closed.
    pub(crate) fn user_changed(&mut self, name: Arc<[u8]>, id: Option<u32>) {
        self.rights_seen += 1;
        self.shared.doors[self.index].rights_seen.store(self.rights_seen, Release);
        let Some(id) = id else { return };
        let user = User { name, id };
        let of_user = self.clients.iter().filter(|(_, client)| client.session.user == user.name);
        let places: Vec<usize> = of_user.map(|(place, _)| place).collect();
        for place in places {
            self.clients[place].session.verdict = None; // it was about the old rights
            self.become_user(place, &user);
        }
    }

    /// Once a second: removes the states of deleted users, if nothing uses them any more.
    pub(crate) fn forget_states(&mut self) {
        let users = &self.shared.users;
        let outlived = self.lanes.sets.outlived(|state| users.name(state.user).is_none());
        if outlived.is_empty() {
            return;
        }
        let mut in_use = HashSet::new();
        for (_, client) in &self.clients {
            in_use.insert(client.lane_set);
            in_use.extend(client.upload.as_ref().map(|upload| upload.set));
        }
        in_use.extend(self.lanes.open.iter().map(|(_, lane)| lane.set));
        in_use.extend(self.locked_pops.running.iter().map(|(_, pop)| pop.set));
        self.lanes.sets.end(&outlived, &in_use);
    }

    /// A user may use fewer channels now: closes the clients that are subscribed to others; after
    /// the reply if the client itself has made that change.
    pub(crate) fn confine(&mut self, user: &[u8], channels: &[Vec<u8>]) {
        let is_outside = |client: &Client| {
            *client.session.user == *user
                && client.subscriptions.as_ref().is_some_and(|known| !known.are_within(channels))
        };
        let found = self.clients.iter().filter(|(_, client)| is_outside(client));
        let places: Vec<(usize, bool)> =
            found.map(|(place, client)| (place, client.gate == Gate::Coordinator)).collect();
        for (place, is_answered_later) in places {
            if is_answered_later {
                self.end_after_replies(place);
            } else {
                self.end_when_whole(place);
            }
        }
    }

    /// The default user needs no password any more.
    pub(crate) fn open_to_all(&mut self) {
        for (_, client) in &mut self.clients {
            client.authenticated = true;
        }
    }
}
