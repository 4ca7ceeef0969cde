//! Commands that a worker answers itself, because it owns the session: PING, HELLO, SELECT, CLIENT
//! ….

use crate::base::number::{parse_i64, push_u64};
use crate::base::step::Step;
use crate::catalog::select::selected;
use crate::catalog::table::{Route, Verb};
use crate::core::worker::Worker;
use crate::lane::lane::State;
use crate::resp::error_text::printable;
use crate::resp::request::{Args, push_array, push_bulk};
use crate::threads::letters::ToCoordinator;

const OK: &[u8] = b"+OK\r\n";

const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";

impl Worker {
    /// Runs a command of the session.
    pub(crate) fn session(&mut self, place: usize, verb: Verb, args: Args) -> Step {
        let before = self.answered_bytes(place);
        let taken = self.answer_session(place, verb, args);
        if taken == Step::Done {
            self.log(place, args, before);
        }
        taken
    }

    fn answer_session(&mut self, place: usize, verb: Verb, args: Args) -> Step {
        // A command that changes the lane set waits for what was sent on the old lanes.
        let changes_lanes =
            matches!(verb, Verb::Select | Verb::Hello | Verb::Reset | Verb::ClientNoTouch);
        if changes_lanes && self.must_drain(place) {
            return Step::Blocked;
        }
        match verb {
            Verb::Multi => self.multi(place),
            Verb::Watch if self.clients[place].multi.is_some() => {
                self.refuse(place, "ERR WATCH inside MULTI is not allowed");
            }
            Verb::Watch => {
                self.clients[place].session.has_queue = true;
                return self.route_to_coordinator(place, args);
            }
            Verb::Exec => return self.exec(place, args),
            Verb::Discard => return self.discard(place, args),
            Verb::Ping => match self.shared.settings.busy() {
                Some(instance) => return self.route_to_instance(place, instance, args),
                None => self.ping(place, args),
            },
            Verb::Echo => self.answer_bulk(place, args.get(1)),
            Verb::Quit => {
                self.answer(place, OK);
                self.end_after_replies(place);
            }
            Verb::Reset => self.reset(place),
            Verb::Hello => self.hello(place, args),
            Verb::Auth => {
                self.clients[place].session.verdict = None; // it was allowed
                self.answer(place, OK);
            }
            Verb::Select => self.select(place, args),
            Verb::ClientId => {
                let mut reply = b":".to_vec();
                push_u64(&mut reply, self.clients[place].session.id);
                reply.extend_from_slice(b"\r\n");
                self.answer(place, &reply);
            }
            Verb::ClientGetname => self.client_name(place),
            Verb::ClientSetname => {
                if is_plain(args.get(2)) {
                    self.clients[place].session.name = args.get(2).to_vec();
                    self.answer(place, OK);
                } else {
                    self.refuse(place, BAD_NAME);
                }
            }
            Verb::ClientSetinfo => self.client_setinfo(place, args),
            Verb::ClientNoEvict => {
                if let Some(on) = self.on_or_off(place, args.get(2)) {
                    self.clients[place].session.no_evict = on;
                    self.answer(place, OK);
                }
            }
            Verb::ClientReply => self.client_reply(place, args),
            Verb::ClientCapa => {
                if args.iter().skip(2).any(|capa| capa.eq_ignore_ascii_case(b"redirect")) {
                    self.clients[place].session.can_redirect = true;
                }
                self.answer(place, OK);
            }
            Verb::ClientNoTouch => {
                if let Some(no_touch) = self.on_or_off(place, args.get(2)) {
                    self.change_state(place, |state| state.no_touch = no_touch);
                    self.answer(place, OK);
                }
            }
        }
        Step::Done
    }

    fn ping(&mut self, place: usize, args: Args) {
        match args.len() {
            1 | 2 if self.clients[place].is_resp2_subscriber => {
                let mut reply = b"*2\r\n$4\r\npong\r\n".to_vec();
                push_bulk(&mut reply, if args.len() > 1 { args.get(1) } else { b"" });
                self.answer(place, &reply);
            }
            1 => self.answer(place, b"+PONG\r\n"),
            2 => self.answer_bulk(place, args.get(1)),
            _ => self.refuse(place, "ERR wrong number of arguments for 'ping' command"),
        }
    }

    fn reset(&mut self, place: usize) {
        self.unsubscribe_all(place);
        self.end_monitoring(place);
        self.end_tracking(place);
        self.change_state(place, |state| *state = State::default());
        let user = self.shared.users.newcomer();
        self.become_user(place, &user);
        let authenticated = self.shared.users.is_open();
        // Servers that have CLIENT NO-TOUCH let RESET end NO-EVICT, too.
        let resets_no_evict = self.shared.table.has(Route::Session(Verb::ClientNoTouch));
        let client = &mut self.clients[place];
        if let Some(reply_mode) = &mut client.reply_mode {
            reply_mode.reset();
        }
        client.session.name.clear();
        client.session.no_evict &= !resets_no_evict;
        client.multi = None;
        if std::mem::take(&mut client.is_watching) {
            self.shared.coordinator.post(ToCoordinator::Gone(self.key(place)));
        }
        let client = &mut self.clients[place];
        client.authenticated = authenticated;
        self.answer(place, b"+RESET\r\n");
    }

    fn select(&mut self, place: usize, args: Args) {
        match selected(args, self.shared.databases) {
            Ok(db) => {
                self.change_state(place, |state| state.db = db);
                self.answer(place, OK);
            }
            Err(why) => self.refuse(place, why),
        }
    }

    /// HELLO [version [AUTH user password] [SETNAME name]]: nothing changes unless all of it is
    /// right.
    fn hello(&mut self, place: usize, args: Args) {
        let mut resp3 = self.state_of(place).resp3;
        if args.len() > 1 {
            match parse_i64(args.get(1)) {
                Some(2) => resp3 = false,
                Some(3) => resp3 = true,
                Some(_) => return self.refuse(place, "NOPROTO unsupported protocol version"),
                None => {
                    let text = "ERR Protocol version is not an integer or out of range";
                    return self.refuse(place, text);
                }
            }
        }
        let mut name = None;
        let mut at = 2;
        while at < args.len() {
            let more = args.len() - at - 1;
            let option = args.get(at);
            if option.eq_ignore_ascii_case(b"AUTH") && more >= 2 {
                at += 3;
            } else if option.eq_ignore_ascii_case(b"SETNAME") && more >= 1 {
                if !is_plain(args.get(at + 1)) {
                    return self.refuse(place, BAD_NAME);
                }
                name = Some(args.get(at + 1));
                at += 2;
            } else {
                let option = printable(option, option.len());
                let text = [b"ERR Syntax error in HELLO option '", option, b"'"].concat();
                return self.answer_error(place, &text);
            }
        }
        self.clients[place].session.verdict = None; // AUTH was allowed
        if let Some(name) = name {
            self.clients[place].session.name = name.to_vec();
        }
        self.change_state(place, |state| state.resp3 = resp3);
        let (before, after) = &self.shared.hello[usize::from(resp3)];
        let mut reply = before.clone();
        reply.push(b':');
        push_u64(&mut reply, self.clients[place].session.id);
        reply.extend_from_slice(b"\r\n");
        reply.extend_from_slice(after);
        self.answer(place, &reply);
    }

    fn client_name(&mut self, place: usize) {
        let name = self.clients[place].session.name.clone();
        if !name.is_empty() {
            self.answer_bulk(place, &name);
        } else if self.state_of(place).resp3 {
            self.answer(place, b"_\r\n");
        } else {
            self.answer(place, b"$-1\r\n");
        }
    }

    fn client_setinfo(&mut self, place: usize, args: Args) {
        let (option, value) = (args.get(2), args.get(3));
        let is_name = option.eq_ignore_ascii_case(b"LIB-NAME");
        if !is_name && !option.eq_ignore_ascii_case(b"LIB-VER") {
            let option = printable(option, option.len());
            let text = [b"ERR Unrecognized option '", option, b"'"].concat();
            return self.answer_error(place, &text);
        }
        if !is_plain(value) {
            let why = b" cannot contain spaces, newlines or special characters.";
            return self.answer_error(place, &[b"ERR ", option, why].concat());
        }
        let session = &mut self.clients[place].session;
        let field = if is_name { &mut session.lib_name } else { &mut session.lib_version };
        *field = value.to_vec();
        self.answer(place, OK);
    }

    fn client_reply(&mut self, place: usize, args: Args) {
        let word = args.get(2).to_ascii_lowercase();
        let client = &mut self.clients[place];
        let next = client.next_sequence();
        match word.as_slice() {
            b"on" => {
                if let Some(reply_mode) = &mut client.reply_mode {
                    reply_mode.switch_on(next);
                }
                self.answer(place, OK);
            }
            b"off" => client.reply_mode.get_or_insert_default().switch_off(next),
            b"skip" if client.executing.is_some() => {
                client.reply_mode.get_or_insert_default().skip_after_exec();
            }
            b"skip" => client.reply_mode.get_or_insert_default().skip(next),
            _ => self.refuse(place, "ERR syntax error"),
        }
    }

    fn on_or_off(&mut self, place: usize, word: &[u8]) -> Option<bool> {
        if word.eq_ignore_ascii_case(b"on") {
            Some(true)
        } else if word.eq_ignore_ascii_case(b"off") {
            Some(false)
        } else {
            self.refuse(place, "ERR syntax error");
            None
        }
    }

    fn answer_bulk(&mut self, place: usize, bytes: &[u8]) {
        let mut reply = Vec::with_capacity(bytes.len() + 16);
        push_bulk(&mut reply, bytes);
        self.answer(place, &reply);
    }
}

/// Redis's rule for client names: printable, no space.
fn is_plain(text: &[u8]) -> bool {
    text.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

/// The parts of HELLO's reply before and after the client's id, from its other fields, whose values
/// are RESP already.
#[must_use]
pub fn hello_reply(fields: &[(Vec<u8>, Vec<u8>)], resp3: bool) -> (Vec<u8>, Vec<u8>) {
    let mut halves = [Vec::new(), Vec::new()];
    if resp3 {
        halves[0].push(b'%');
        push_u64(&mut halves[0], fields.len() as u64);
        halves[0].extend_from_slice(b"\r\n");
    } else {
        push_array(&mut halves[0], fields.len() * 2);
    }
    let mut half = 0;
    for (name, value) in fields {
        push_bulk(&mut halves[half], name);
        match name.as_slice() {
            b"id" => half = 1,
            b"proto" => {
                halves[half].extend_from_slice(if resp3 { b":3\r\n" } else { b":2\r\n" });
            }
            _ => halves[half].extend_from_slice(value),
        }
    }
    let [before, after] = halves;
    (before, after)
}
