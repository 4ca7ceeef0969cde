//! From a client's bytes to the lanes: cuts commands, looks them up, finds the instance, appends.

use crate::base::step::Step;
use crate::catalog::table::Found;
use crate::client::closing::Closing;
use crate::client::gate::Gate;
use crate::client::input::Input;
use crate::core::input::READ_MOST;
use crate::core::worker::{CLIENT_READ, Worker, put_back};
use crate::net::socket;
use crate::net::socket::Io;
use crate::resp::error_text::{unknown_command, unknown_subcommand};
use crate::resp::request::{Args, Cut, Limits};
use crate::tables::pause;
use crate::threads::shared::Shared;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// A partial command longer than this keeps its state between reads; a shorter one is cut anew.
const KEEP_PLACE: usize = 1024;

impl Worker {
    /// Reads every ready client once, and forwards its commands.
    pub(crate) fn read_clients(&mut self) {
        let mut ready = std::mem::take(&mut self.ready);
        for place in ready.drain(..) {
            let Some(client) = self.clients.get_mut(place) else {
                continue;
            };
            client.is_ready = false;
            let (closing, gate) = (client.closing, client.gate);
            match closing {
                Closing::AfterReplies | Closing::Lingering(_) => self.discard_input(place),
                Closing::No if gate.takes_some() => self.serve(place),
                Closing::No if gate == Gate::Upload => self.upload(place),
                Closing::No if self.keeps_reading(place) => self.keep(place),
                _ => {}
            }
        }
        put_back(&mut self.ready, ready);
    }

    /// First the bytes that are already here, then those in the socket.
    fn serve(&mut self, place: usize) {
        if self.clients[place].is_misplaced() {
            self.spread(place);
        }
        // A transaction ends here too: the client may send nothing more for a long time.
        let has_kept =
            !self.clients[place].rx.is_empty() || self.clients[place].executing.is_some();
        let request = self.clients[place].request.as_ref();
        if has_kept && request.is_none_or(|request| request.has_grown) {
            self.forward_kept(place);
            self.read_more_to_join(place);
            self.account(place);
            self.look_again(place);
        }
        let client = &mut self.clients[place];
        if !client.readable
            || !client.gate.takes_some()
            || client.closing != Closing::No
            || client.feed_drained
        {
            return;
        }
        let io = if client.rx.is_empty() {
            let mut bytes = std::mem::take(&mut self.scratch);
            bytes.clear();
            let io = socket::read(&client.fd, &mut bytes, CLIENT_READ);
            self.note_read(place, io, CLIENT_READ);
            let used = self.forward(place, &bytes);
            if used < bytes.len() {
                self.clients[place].rx = Input::of(&bytes[used..]);
            }
            self.scratch = bytes;
            io
        } else {
            let chunk = client.rx.len().clamp(CLIENT_READ, READ_MOST);
            let io = client.rx.read(&client.fd, chunk);
            self.note_read(place, io, chunk);
            self.forward_kept(place);
            io
        };
        self.read_more_to_join(place);
        self.account(place);
        let client = &self.clients[place];
        if io == Io::Gone {
            self.unsubscribe_all(place); // it is not counted as a subscriber any more
            self.end_after_replies(place);
        } else if self.is_over_input_limit(place) {
            self.sent_too_much(place);
        } else if client.readable && client.gate.takes_some() && client.closing == Closing::No
            || self.keeps_reading(place)
        {
            self.mark_ready(place);
        }
    }

    fn forward_kept(&mut self, place: usize) {
        let mut input = std::mem::take(&mut self.clients[place].rx);
        let used = self.forward(place, input.kept());
        input.take(used);
        self.clients[place].rx = input;
    }

    /// Forwards the commands at the front of `bytes`, and returns how many bytes they had.
    fn forward(&mut self, place: usize, bytes: &[u8]) -> usize {
        let mut used = 0;
        if self.clients[place].request.is_none() {
            used = self.forward_ordinary(place, bytes);
            if used > 0 && used == bytes.len() {
                return used;
            }
        }
        let mut request = match self.clients[place].request.take() {
            Some(request) => *request,
            None => std::mem::take(&mut self.request),
        };
        let shared = Arc::clone(&self.shared);
        let mut taken = 0;
        loop {
            let client = &mut self.clients[place];
            if !client.gate.takes_some() || client.closing != Closing::No {
                break;
            }
            if client.executing.is_some() {
                if self.has_executed(place) {
                    let client = &mut self.clients[place];
                    client.last_command = client.session.exec_row;
                    continue;
                }
                if self.clients[place].gate != Gate::Open {
                    break;
                }
            } else if client.is_behind(bytes.len() - used, &shared.settings) {
                client.gate = Gate::Output;
                break;
            }
            let client = &mut self.clients[place];
            let limits = Limits {
                is_authenticated: client.authenticated,
                argument: shared.settings.argument_limit(),
            };
            match request.cut_from(&bytes[used..], limits, shared.dialect) {
                Ok(Cut::Complete(length)) => {
                    let args = request.args(&bytes[used..used + length]);
                    let taken_now = if self.clients[place].executing.is_some() {
                        self.take_queued(place, args, &shared)
                    } else {
                        self.take(place, args, &shared)
                    };
                    if taken_now == Step::Blocked {
                        break;
                    }
                    self.clients[place].session.verdict = None;
                    taken += u64::from(!args.is_empty());
                    request.reset();
                    used += length;
                    if self.clients[place].gate == Gate::Drain {
                        let rest = &bytes[used..];
                        let (length, count) = self.join_more(place, rest, &mut request, &shared);
                        (used, taken) = (used + length, taken + count);
                    }
                    used += self.forward_ordinary(place, &bytes[used..]);
                }
                Ok(Cut::Incomplete) => {
                    if request.is_partial() && bytes.len() - used > KEEP_PLACE {
                        let rest = &bytes[used..];
                        if let Some(sent) = self.begin_upload(place, &request, rest, &shared) {
                            used += sent;
                            break;
                        }
                        self.clients[place].request = Some(Box::new(std::mem::take(&mut request)));
                    }
                    break;
                }
                Err(error) => {
                    self.end_after_protocol_error(place, &error);
                    used = bytes.len();
                    break;
                }
            }
        }
        request.reset();
        self.request = request;
        self.counters.commands += taken;
        self.clients[place].session.commands += taken;
        used
    }

    /// Takes one command.
    pub(crate) fn take(&mut self, place: usize, args: Args, shared: &Shared) -> Step {
        if args.is_empty() {
            self.clients[place].skip_nothing();
            return Step::Done;
        }
        let sub = (args.len() > 1).then(|| args.get(1));
        let found = match shared.table.find_again(&mut self.recent, args.get(0), sub) {
            Found::Row(found) => found,
            Found::UnknownCommand if self.must_say_who(place) => {
                return self.refuse_stranger(place);
            }
            Found::UnknownCommand => return self.unknown_command(place, args),
            Found::UnknownSubcommand(parent) => {
                self.clients[place].last_command = parent;
                if self.must_say_who(place) {
                    return self.refuse_stranger(place);
                }
                self.answer_error(place, &unknown_subcommand(&shared.table.row(parent).name, args));
                self.spoil_multi(place);
                self.note_unknown(place);
                return Step::Done;
            }
        };
        let row = shared.table.row(found);
        let client = &mut self.clients[place];
        if client.gate == Gate::Subscribing && !row.may_follow_subscribe() {
            client.gate = Gate::Drain;
            return Step::Blocked;
        }
        client.last_command = found; // before it runs: CLIENT INFO shows itself
        if (!row.takes(args.len()) || !client.authenticated || !row.protection.is_empty())
            && let Some(why) = self.early_refusal(place, row, args.len())
        {
            return self.reject(place, row, args, &why);
        }
        let client = &self.clients[place];
        let is_confined =
            client.is_resp2_subscriber && client.executing.is_none() && !row.is_for_subscribers();
        if is_confined && row.no_auth {
            self.refuse_while_subscribed(place, row, args)
        } else if (client.is_restricted
            || row.no_auth
            || ((client.multi.is_some() || self.is_monitored()) && shared.may_refuse(row)))
            && let Some(taken) = self.ask_first(place, row, args, shared)
        {
            taken
        } else if is_confined {
            self.refuse_while_subscribed(place, row, args)
        } else if shared.settings.pause.load(Relaxed) != pause::NONE && self.must_pause(place, row)
            || self.must_wait_for_subscriptions(place, row)
        {
            Step::Blocked
        } else if self.is_monitored() && self.refuse_to_monitor(place, row) {
            Step::Done
        } else if self.clients[place].multi.is_some() && !row.ends_multi {
            self.queue(place, row, args, shared);
            Step::Done
        } else if self.clients[place].executing.is_none() && self.is_locked(place, row, args) {
            self.wait_for_keys(place, row, args)
        } else if row.feeds && self.attempts.has_groups && self.must_follow_groups(place, row, args)
        {
            Step::Blocked
        } else {
            let is_tracking = self.clients[place].is_tracking;
            if is_tracking && self.must_hear(place) {
                return Step::Blocked;
            }
            if is_tracking {
                self.remember(place, row, args);
            }
            if row.writes && row.only_key == 0 && shared.tracking.is_on() {
                self.note_order(row, args);
            }
            let needs_coordinator = self.concerns_a_wait(place, row, args)
                || is_tracking && self.changes_unheard(place, row);
            let taken = if needs_coordinator {
                self.route_to_coordinator(place, args)
            } else {
                self.counted(place, (found, row), |worker| worker.route(place, row, args, shared))
            };
            if taken == Step::Done && self.is_monitored() {
                self.show(place, row, args);
            }
            if taken == Step::Done && is_tracking {
                self.end_caching(place, row);
            }
            taken
        }
    }

    fn unknown_command(&mut self, place: usize, args: Args) -> Step {
        let name = args.get(0);
        // A browser was tricked into sending HTTP to this port. Redis closes the connection, and so
        // does this proxy, but only after earlier commands are answered.
        if name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:") {
            self.counters.protocol_errors += 1;
            self.end_after_replies(place);
            return Step::Done;
        }
        self.answer_error(place, &unknown_command(args));
        self.spoil_multi(place);
        self.note_unknown(place);
        Step::Done
    }
}
