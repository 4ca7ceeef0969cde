//! SUBSCRIBE, PUBLISH, PUBSUB and similar commands, and the delivery of messages to clients.

use crate::base::number::push_u64;
use crate::base::step::Step;
use crate::catalog::channels::{KINDS, Kind, Name, Verb};
use crate::client::gate::Gate;
use crate::core::worker::Worker;
use crate::resp::error_text::printable;
use crate::resp::request::{Args, push_array, push_bulk};
use crate::threads::letters::ToCoordinator;
use std::collections::HashSet;

impl Worker {
    /// Runs a command about subscriptions.
    pub(crate) fn pubsub(&mut self, place: usize, verb: Verb, args: Args) -> Step {
        // A message or a confirmation must not overtake replies to earlier commands. And a client
        // that gets a message may rely on the writes before it.
        if matches!(verb, Verb::Publish(_)) && self.must_let_others_read(place) {
            return Step::Blocked;
        }
        let is_ordered =
            matches!(verb, Verb::Subscribe(_) | Verb::Unsubscribe(_) | Verb::Publish(_));
        let is_behind_others = self.clients[place].gate == Gate::Subscribing; // and may be: see there
        if is_ordered && !is_behind_others && self.must_drain(place) {
            return Step::Blocked;
        }
        let before = self.answered_bytes(place);
        match verb {
            // An instance that runs a script for too long accepts no subscriptions.
            Verb::Subscribe(_) if self.shared.settings.busy().is_some() => {
                self.refuse(place, &self.shared.settings.busy_words());
                return Step::Done;
            }
            Verb::Subscribe(kind) => self.subscribe(place, kind, args),
            Verb::Unsubscribe(kind) => self.unsubscribe(place, kind, args),
            Verb::Publish(kind) => self.publish_message(place, kind, args.get(1), args.get(2)),
            Verb::Names(_) if args.len() > 3 => {
                let name = printable(args.get(1), 128);
                let why = b"ERR unknown subcommand or wrong number of arguments for '";
                self.answer_error(place, &[why, name, b"'. Try PUBSUB HELP."].concat());
            }
            Verb::Names(kind) => {
                let pattern = (args.len() > 2).then(|| args.get(2));
                let names = self.shared.registry.names(kind, pattern);
                let mut reply = Vec::new();
                push_array(&mut reply, names.len());
                for name in names {
                    push_bulk(&mut reply, &name);
                }
                self.answer(place, &reply);
            }
            Verb::Count(kind) => {
                let mut reply = Vec::new();
                push_array(&mut reply, (args.len() - 2) * 2);
                for name in args.iter().skip(2) {
                    push_bulk(&mut reply, name);
                    push_number(&mut reply, self.shared.registry.subscribers(kind, name));
                }
                self.answer(place, &reply);
            }
            Verb::Patterns => self.answer_number(place, self.shared.registry.len(Kind::Pattern)),
        }
        self.log(place, args, before);
        Step::Done
    }

    fn answer_number(&mut self, place: usize, number: usize) {
        let mut reply = Vec::new();
        push_number(&mut reply, number);
        self.answer(place, &reply);
    }

    fn publish_message(&mut self, place: usize, kind: Kind, channel: &[u8], payload: &[u8]) {
        let shared = self.shared.clone();
        let receivers = shared.registry.publish(kind, channel, payload, &shared.doors);
        if shared.pushes_follow_replies {
            self.answer_number(place, receivers);
            self.read_messages();
        } else {
            // Those servers push it at once, even into the middle of EXEC's reply.
            let executing = self.clients[place].executing.take();
            self.read_messages();
            self.clients[place].executing = executing;
            self.answer_number(place, receivers);
        }
    }

    /// Subscribes a client. For messages of clients this counts at once. The coordinator subscribes
    /// the instances as well; until then the confirmation waits, and so do messages.
    fn subscribe(&mut self, place: usize, kind: Kind, args: Args) {
        if kind == Kind::Shard && self.clients[place].executing.is_some() {
            // The older kinds may, for compatibility with older clients.
            return self.refuse(place, "ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client");
        }
        let names: Vec<Name> = args.iter().skip(1).map(Name::from).collect();
        let fresh = self.fresh(place, kind, &names);
        let shared = self.shared.clone();
        let (messages, are_upstream) =
            shared.registry.join(kind, &fresh, self.index, &shared.doors, &shared.coordinator);
        self.deliver_messages(messages); // to the clients that were subscribed before
        let confirmation = self.enter(place, kind, &names);
        if are_upstream && self.clients[place].session.confirmations.is_empty() {
            return self.confirm(place, confirmation);
        }
        let sequence = self.confirm_later(place, confirmation);
        let (key, names) = (self.key(place), fresh.iter().map(|name| name.to_vec()).collect());
        shared.coordinator.post(ToCoordinator::Subscribe { key, sequence, kind, names });
    }

    /// The names that a client is not subscribed to, each once.
    fn fresh(&self, place: usize, kind: Kind, names: &[Name]) -> Vec<Name> {
        let known = self.clients[place].subscriptions.as_ref();
        let is_known = |name: &Name| known.is_some_and(|known| known.has(kind, name));
        let mut seen = HashSet::new();
        names.iter().filter(|name| !is_known(name) && seen.insert(*name)).cloned().collect()
    }

    /// Adds a client, which the registry counts already, to the audience; returns the confirmation.
    fn enter(&mut self, place: usize, kind: Kind, names: &[Name]) -> Vec<u8> {
        let resp3 = self.is_resp3(place);
        let client = &mut self.clients[place];
        if client.subscriptions.is_none() {
            self.audience.clients += 1;
        }
        let known = client.subscriptions.get_or_insert_default();
        let mut confirmation = Vec::new();
        for name in names {
            if known.add(kind, name) {
                self.audience.add(kind, name, place);
            }
            let count = known.shown(kind);
            push_confirmation(&mut confirmation, resp3, subscribed(kind), Some(name), count);
        }
        client.is_resp2_subscriber = !resp3;
        confirmation
    }

    fn unsubscribe(&mut self, place: usize, kind: Kind, args: Args) {
        if self.shared.unsubscribing_needs_subscription
            && self.clients[place].subscriptions.is_none()
        {
            let name = String::from_utf8_lossy(unsubscribed(kind));
            return self
                .refuse(place, &format!("NOSUB '{name}' command executed not in subscribed mode"));
        }
        let resp3 = self.is_resp3(place);
        let names: Vec<Name> = if args.len() > 1 {
            args.iter().skip(1).map(Name::from).collect()
        } else {
            let known = self.clients[place].subscriptions.as_ref();
            known.map_or_else(Vec::new, |known| known.in_order(kind))
        };
        let mut confirmation = Vec::new();
        if names.is_empty() {
            let known = self.clients[place].subscriptions.as_ref();
            let left = known.map_or(0, |known| known.shown(kind));
            push_confirmation(&mut confirmation, resp3, unsubscribed(kind), None, left);
        }
        let known = self.clients[place].subscriptions.as_deref();
        let is_known = |name: &&Name| known.is_some_and(|known| known.has(kind, name));
        let mut seen = HashSet::new();
        let leaving = names.iter().filter(|name| is_known(name) && seen.insert(*name));
        let leaving: Vec<Name> = leaving.cloned().collect();
        self.count_out(kind, &leaving);
        for name in names {
            self.leave(place, kind, &name);
            let known = self.clients[place].subscriptions.as_ref();
            let left = known.map_or(0, |known| known.shown(kind));
            push_confirmation(&mut confirmation, resp3, unsubscribed(kind), Some(&name), left);
        }
        self.forget_subscriber(place);
        self.confirm(place, confirmation);
    }

    /// Ends all subscriptions of a client that resets or leaves.
    pub(crate) fn unsubscribe_all(&mut self, place: usize) {
        for kind in KINDS {
            let Some(known) = &self.clients[place].subscriptions else {
                return;
            };
            let names = known.in_order(kind);
            self.count_out(kind, &names);
            for name in names {
                self.leave(place, kind, &name);
            }
        }
        self.forget_subscriber(place);
    }
}

fn subscribed(kind: Kind) -> &'static [u8] {
    match kind {
        Kind::Channel => b"subscribe",
        Kind::Pattern => b"psubscribe",
        Kind::Shard => b"ssubscribe",
    }
}

fn unsubscribed(kind: Kind) -> &'static [u8] {
    match kind {
        Kind::Channel => b"unsubscribe",
        Kind::Pattern => b"punsubscribe",
        Kind::Shard => b"sunsubscribe",
    }
}

fn push_confirmation(
    out: &mut Vec<u8>,
    resp3: bool,
    word: &[u8],
    name: Option<&[u8]>,
    count: usize,
) {
    out.extend_from_slice(if resp3 { b">3\r\n" } else { b"*3\r\n" });
    push_bulk(out, word);
    match name {
        Some(name) => push_bulk(out, name),
        None => out.extend_from_slice(if resp3 { b"_\r\n" } else { b"$-1\r\n" }),
    }
    push_number(out, count);
}

fn push_number(out: &mut Vec<u8>, number: usize) {
    out.push(b':');
    push_u64(out, number as u64);
    out.extend_from_slice(b"\r\n");
}
