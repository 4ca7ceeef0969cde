//! Who clients are, and what they must be allowed before they do it.
//!
//! ```text
//! unrestricted users   share lanes that may do everything; nobody is asked anything
//! restricted users     one key's commands: a lane of their own user, whose server decides
//!                      all others: the coordinator is asked first, and the command taken again
//! AUTH, HELLO … AUTH   the coordinator is asked, always
//! ```

use crate::client::{Client, Gate};
use crate::command::{Route, Row, Verb};
use crate::forward::Taken;
use crate::request::Args;
use crate::route::{Owner, has_special_word, owner};
use crate::shared::{ClientKey, Shared, ToCoordinator};
use crate::worker::Worker;
use std::collections::HashMap;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32};
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
    default_id: AtomicU32,
    default_is_open: AtomicBool,
    /// The coordinator has said who there is.
    are_known: AtomicBool,
}

impl Users {
    /// Takes note of a user.
    pub fn set(&self, user: &User) {
        if *user.name == *DEFAULT {
            self.default_id.store(user.id, Release);
        }
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.insert(Arc::clone(&user.name), user.id);
        drop(ids);
        if user.id != 0 {
            let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            names.insert(user.id, Arc::clone(&user.name));
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

impl Worker {
    /// Before a command of a restricted user, or of anyone who says who he is: what to do
    /// instead of running it, if anything.
    #[cold]
    pub(crate) fn ask_first(
        &mut self,
        place: usize,
        row: &Row,
        args: Args,
        shared: &Shared,
    ) -> Option<Taken> {
        let client = &mut self.clients[place];
        let is_queued = client.multi.is_some() && !row.ends_multi;
        let is_login = match row.route {
            Route::Session(Verb::Auth) => true,
            Route::Session(Verb::Hello) => {
                !client.authenticated || args.iter().any(|arg| arg.eq_ignore_ascii_case(b"AUTH"))
            }
            _ => false,
        };
        let is_exempt = if is_login {
            is_queued
        } else {
            let is_judged = client.is_restricted || is_queued && shared.may_refuse(row);
            row.no_auth || !is_judged
        };
        if is_exempt {
            return None;
        }
        match client.session.verdict.take() {
            Some(Verdict::Refused(reply)) => {
                self.tally.called(client.last_command);
                self.tally.failed(client.last_command, &reply);
                self.answer(place, &reply);
                if is_login && self.is_monitored() {
                    self.show(place, row, args);
                }
                if row.route == Route::Session(Verb::Exec) {
                    self.clients[place].multi = None;
                }
                self.spoil_multi(place);
                return Some(Taken::Yes);
            }
            Some(Verdict::Allowed) => {
                client.session.verdict = Some(Verdict::Allowed);
                return None;
            }
            None => {}
        }
        if is_login && self.must_drain(place) {
            return Some(Taken::NotYet);
        }
        // Between MULTI and EXEC servers have other words for it.
        let executing = self.clients[place].executing.map(|executing| executing.token);
        let may_go = !is_login && !is_queued && executing.is_none();
        if may_go && self.is_judged_by_lane(place, row, args, shared) {
            return None;
        }
        let letter = ToCoordinator::Command {
            key: self.key(place),
            info: Box::new(self.describe(place)),
            args: args.iter().map(<[u8]>::to_vec).collect(),
            queued: is_queued.then(Vec::new),
            token: executing,
            is_question: true,
        };
        self.clients[place].gate = Gate::Coordinator;
        self.shared.coordinator.post(letter);
        Some(Taken::NotYet)
    }

    /// True if the command goes to one instance as it is, on the user's own lane.
    fn is_judged_by_lane(&self, place: usize, row: &Row, args: Args, shared: &Shared) -> bool {
        match row.route {
            Route::Any => true,
            Route::Keys => {
                let goes_elsewhere = has_special_word(row, args)
                    || matches!(owner(row, args, self.db(place), shared), Owner::Several)
                    || (row.feeds && self.ends_a_wait(place, row, args));
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

    /// A user's permissions have changed.
    pub(crate) fn user_changed(&mut self, user: &User) {
        self.rights_seen += 1;
        let of_user = self.clients.iter().filter(|(_, client)| client.session.user == user.name);
        let places: Vec<usize> = of_user.map(|(place, _)| place).collect();
        for place in places {
            self.clients[place].session.verdict = None; // it was about the old ones
            self.become_user(place, user);
        }
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
                self.end_client(place);
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
