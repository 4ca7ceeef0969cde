//! Refuses commands before their rights, state and keys are checked, in the server's order and with
//! its error texts.

use crate::base::step::Step;
use crate::catalog::table::Row;
use crate::core::worker::Worker;
use crate::net::socket::Peer;
use crate::resp::request::Args;

const NO_AUTH: &str = "NOAUTH Authentication required.";

impl Worker {
    /// Whether a client that is not authenticated gets this answer to every command.
    pub(crate) fn must_say_who(&self, place: usize) -> bool {
        !self.clients[place].authenticated && self.shared.asks_who_first
    }

    /// Answers an unknown command of a client that is not authenticated.
    pub(crate) fn refuse_stranger(&mut self, place: usize) -> Step {
        self.refuse(place, NO_AUTH);
        self.spoil_multi(place);
        Step::Done
    }

    /// The reason to refuse a command with that many arguments, if there is one.
    #[cold]
    pub(crate) fn early_refusal(
        &self,
        place: usize,
        row: &Row,
        arguments: usize,
    ) -> Option<String> {
        let client = &self.clients[place];
        let is_stranger = !client.authenticated && !row.no_auth;
        if is_stranger && self.shared.asks_who_first {
            return Some(NO_AUTH.to_owned());
        }
        if !row.takes(arguments) {
            let name = String::from_utf8_lossy(&row.name);
            return Some(format!("ERR wrong number of arguments for '{name}' command"));
        }
        let is_open = row.is_open_to_local && is_local(&client.session.peer);
        if !row.protection.is_empty() && !is_open {
            return Some(String::from_utf8_lossy(&row.protection).into_owned());
        }
        is_stranger.then(|| NO_AUTH.to_owned())
    }

    /// Refuses a command that a subscribed RESP2 client may not use.
    pub(crate) fn refuse_while_subscribed(&mut self, place: usize, row: &Row, args: Args) -> Step {
        let name = String::from_utf8_lossy(&row.name);
        let why = format!(
            "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / \
             RESET are allowed in this context"
        );
        self.reject(place, row, args, &why)
    }

    /// CLIENT LIST shows no name for an unknown command.
    pub(crate) fn note_unknown(&mut self, place: usize) {
        let client = &mut self.clients[place];
        client.last_command = usize::MAX;
        client.session.not_run += 1;
    }

    /// Refuses a command, which does not run. A transaction will be refused; with EXEC it has
    /// ended.
    pub(crate) fn reject(&mut self, place: usize, row: &Row, args: Args, why: &str) -> Step {
        if row.is_exec() {
            let taken = self.exec_refused(place, args, why.strip_prefix("ERR ").unwrap_or(why));
            if taken == Step::Done && self.is_monitored() {
                self.show(place, row, args);
            }
            return taken;
        }
        self.tally.rejected(self.clients[place].last_command);
        self.clients[place].session.not_run += 1;
        self.refuse(place, why);
        self.spoil_multi(place);
        Step::Done
    }
}

/// Whether a client is on this machine, by the servers' rule.
fn is_local(peer: &Peer) -> bool {
    let loopback = ["127.0.0.1:", "[::1]:"];
    peer.is_unix || loopback.iter().any(|host| peer.address.starts_with(host))
}
