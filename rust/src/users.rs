//! Who clients are, and what they must be allowed before they do it.
//!
//! ```text
//! unrestricted users   share lanes that may do everything; nobody is asked anything
//! restricted users     one key's commands: a lane of their own user, whose server decides
//!                      all others: the coordinator is asked first, and the command taken again
//! AUTH, HELLO … AUTH   the coordinator is asked, always
//! ```

use crate::client::{Client, Gate};
use crate::client_key::ClientKey;
use crate::command::{Route, Row, Verb};
use crate::owner::{Owner, has_special_word, owner};
use crate::queued::Queued;
use crate::request::Args;
use crate::shared::{Mail, Shared, ToCoordinator};
use crate::step::Step;
use crate::worker::Worker;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};

const DEFAULT: &[u8] = b"default";

/// A user as the coordinator tells it.
#[derive(Debug, Clone)]
pub struct User {
    /// As in ACL SETUSER.
    pub name: Arc<[u8]>,
    /// 0: may do everything; else never used for another user.
    pub id: u32,
}

/// What all workers know of users.
#[derive(Debug, Default)]
pub struct Users {
    /// The restricted ones.
    names: Mutex<HashMap<u32, Arc<[u8]>>>,
    /// What each user is.
    ids: Mutex<HashMap<Arc<[u8]>, u32>>,
    /// Changes so far; and ids that are nobody's any more, each with the change that made it so.
    changes: AtomicU64,
    outlived: Mutex<Vec<(u64, u32)>>,
    default_id: AtomicU32,
    default_is_open: AtomicBool,
    /// The coordinator has said who there is.
    are_known: AtomicBool,
}

impl Users {
    /// Takes note of a user, or that there is none of that name; all workers know of so many changes by
    /// now. What a user was before is forgotten once nobody goes by it.
    fn set(&self, name: &Arc<[u8]>, id: Option<u32>, seen_by_all: u64) {
        if **name == *DEFAULT {
            self.default_id.store(id.unwrap_or(0), Release);
        }
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match id {
            Some(id) => ids.insert(Arc::clone(name), id),
            None => ids.remove(name),
        };
        drop(ids);
        let change = self.changes.fetch_add(1, Relaxed) + 1;
        let mut outlived = self.outlived.lock().unwrap_or_else(PoisonError::into_inner);
        outlived.extend(before.filter(|&old| old != 0 && id != Some(old)).map(|old| (change, old)));
        let over: Vec<_> = outlived.extract_if(.., |(change, _)| *change <= seen_by_all).collect();
        drop(outlived);
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, id) in over {
            names.remove(&id);
        }
        if let Some(id) = id.filter(|&id| id != 0) {
            names.insert(id, Arc::clone(name));
        }
    }

    /// A restricted user's name.
    #[must_use]
    pub fn name(&self, id: u32) -> Option<Arc<[u8]>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// What a user is now; `None` if nobody has said so.
    #[must_use]
    pub fn id(&self, name: &[u8]) -> Option<u32> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    /// Who a new connection is.
    #[must_use]
    pub fn newcomer(&self) -> User {
        User { name: DEFAULT.into(), id: self.default_id.load(Acquire) }
    }

    /// Whether a new connection need not say who it is.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.default_is_open.load(Relaxed)
    }

    /// Whether it is known who may come: no client is taken before.
    #[must_use]
    pub fn are_known(&self) -> bool {
        self.are_known.load(Acquire)
    }

    /// Says whether a new connection need not say who it is.
    pub fn set_open(&self, is_open: bool) {
        self.default_is_open.store(is_open, Relaxed);
        self.are_known.store(true, Release);
    }
}

/// What the coordinator says of the command that comes next.
#[derive(Debug)]
pub enum Verdict {
    /// Go on.
    Allowed,
    /// This is its reply.
    Refused(Vec<u8>),
}

impl Shared {
    /// Says what a user is, or that there is none of that name.
    pub fn set_user(&self, name: &[u8], id: Option<u32>) {
        let name: Arc<[u8]> = name.into();
        let seen = self.doors.iter().map(|door| door.rights_seen.load(Acquire));
        self.users.set(&name, id, seen.min().unwrap_or(0));
        self.post_to_all(|| Mail::User(Arc::clone(&name), id));
    }
}

impl Worker {
    /// Before a command of a restricted user, of anyone who says who he is, or that may not fit into
    /// memory where that must be known first: what to do instead of running it, if anything.
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
        // Without memory a server may take nothing between MULTI and EXEC that does not end it.
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
                // SORT runs, and looks at its options then.
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
        // Between MULTI and EXEC servers have other words for it.
        let executing = self.clients[place].executing.as_ref().map(|executing| executing.token);
        // And nobody hears of a key that he was refused to read, or sees what does not run.
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

    /// True if the command goes to one instance as it is, on the user's own lane.
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

    /// The coordinator's answer: the command is taken again.
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

    /// Makes a client this user's.
    pub(crate) fn become_user(&mut self, place: usize, user: &User) {
        let client = &mut self.clients[place];
        client.session.user = Arc::clone(&user.name);
        client.is_restricted = user.id != 0;
        self.change_state(place, |state| state.user = user.id);
    }

    /// A user's permissions have changed; or there is none of that name, and its clients are closed.
    pub(crate) fn user_changed(&mut self, name: Arc<[u8]>, id: Option<u32>) {
        self.rights_seen += 1;
        self.shared.doors[self.index].rights_seen.store(self.rights_seen, Release);
        let Some(id) = id else { return };
        let user = User { name, id };
        let of_user = self.clients.iter().filter(|(_, client)| client.session.user == user.name);
        let places: Vec<usize> = of_user.map(|(place, _)| place).collect();
        for place in places {
            self.clients[place].session.verdict = None; // it was about the old ones
            self.become_user(place, &user);
        }
    }

    /// Once a second: forgets the states of users that are others by now, if nothing is left of them.
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
        in_use.extend(self.looks.running.iter().map(|(_, look)| look.set));
        self.lanes.sets.end(&outlived, &in_use);
    }

    /// A user may listen to less: closes those who do to more; after the reply if it is they who
    /// have changed that.
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

#[cfg(test)]
mod tests {
    use super::{Arc, Users};

    #[test]
    fn what_users_were_before_is_forgotten_once_nobody_goes_by_it() {
        let users = Users::default();
        let (ann, bob): (Arc<[u8]>, Arc<[u8]>) = (b"ann"[..].into(), b"bob"[..].into());
        users.set(&ann, Some(1), 0);
        users.set(&ann, Some(2), 0);
        users.set(&bob, Some(3), 1); // not all workers know of the second change
        assert_eq!(users.name(1), Some(Arc::clone(&ann)));
        users.set(&bob, None, 2);
        assert_eq!((users.name(1), users.name(2)), (None, Some(Arc::clone(&ann))));
        assert_eq!((users.id(b"bob"), users.name(3)), (None, Some(Arc::clone(&bob))));
        for id in 4..1000 {
            users.set(&ann, Some(id), u64::from(id));
        }
        assert_eq!(users.names.lock().map(|names| names.len()).ok(), Some(2));
    }
}
