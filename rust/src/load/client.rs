//! One client: a link, or one to each node of a cluster; at most one batch of commands is in
//! flight.

use std::io;

use super::link::Link;
use super::reply::{Malformed, Reply, cut};
use super::request::{ANY, Author, Expected, Kind, Requests};
use super::tally::{Fault, LoadReport};
use super::value::Values;

/// A connected client.
#[derive(Debug)]
pub struct Client {
    /// One for each node; a command goes to the node that owns its key.
    pub links: Vec<Link>,
    /// What the client has written.
    pub author: Author,
    /// Whether a batch is in flight, as the loop knows it.
    pub busy: bool,
    due: u64,
    keys_per_command: usize,
}

impl Client {
    /// A client with these links.
    pub fn new(links: Vec<Link>, author: Author, keys_per_command: usize) -> Self {
        Self { links, author, busy: false, due: 0, keys_per_command }
    }

    /// The commands that were sent and are not answered.
    pub fn outstanding(&self) -> u64 {
        let keys: usize = self.links.iter().map(|link| link.owed.len() - link.settled).sum();
        (keys / self.keys_per_command) as u64
    }

    /// Begins a batch whose latency counts from `due`; only if nothing is outstanding.
    pub fn fill(&mut self, requests: &mut Requests, pipeline: usize, due: u64) {
        self.links.iter_mut().for_each(Link::clear);
        self.due = due;
        for _ in 0..pipeline {
            if !requests.append(&mut self.author, &mut self.links) {
                break;
            }
        }
    }

    /// Reads one link once into `scratch` and checks the complete replies. Returns their number if
    /// the connection can go on.
    pub fn receive(
        &mut self,
        link: usize,
        scratch: &mut Vec<u8>,
        values: &Values,
        report: &mut LoadReport,
    ) -> io::Result<u64> {
        let before = self.links[link].settled;
        let (author, step) = (&mut self.author, self.keys_per_command);
        let take = |link: &mut Link, reply: &Reply<'_>, report: &mut LoadReport| {
            settle(link, reply, step, &mut Judge { author, values, report })
        };
        self.links[link].receive(scratch, report, take)?;
        Ok(((self.links[link].settled - before) / step) as u64)
    }

    /// The time since the batch was due.
    pub fn age(&self, now: u64) -> u64 {
        now - self.due
    }
}

/// Handles the reply to the next command of a link.
#[inline]
fn settle(
    link: &mut Link,
    reply: &Reply<'_>,
    keys_per_command: usize,
    judge: &mut Judge<'_>,
) -> Result<(), Malformed> {
    let first = link.settled;
    if first == link.owed.len() {
        return Err(Malformed("a reply that nothing asked for"));
    }
    link.settled += keys_per_command;
    match *reply {
        Reply::Array(count, mut elements)
            if count == keys_per_command || link.owed[first].kind == Kind::Any =>
        {
            for at in 0..count {
                let (element, length) = cut(elements)?.ok_or(Malformed("a short array"))?;
                elements = &elements[length..];
                judge.judge(link.owed[first + at.min(keys_per_command - 1)], &element, &link.owed);
            }
        }
        ref reply => judge.judge(link.owed[first], reply, &link.owed),
    }
    Ok(())
}

/// Compares a reply with what was requested.
struct Judge<'a> {
    author: &'a mut Author,
    values: &'a Values,
    report: &'a mut LoadReport,
}

impl Judge<'_> {
    #[inline]
    fn judge(&mut self, asked: Expected, reply: &Reply<'_>, pipeline: &[Expected]) {
        match (reply, asked.kind) {
            (Reply::Error(text), kind) => {
                if kind == Kind::Set {
                    self.author.note_write(asked.key, ANY);
                }
                let text = format!("key {}: {}", asked.key, text.escape_ascii());
                self.report.fault(Fault::Server, 1, self.author.client, &text);
            }
            (_, Kind::Any) | (Reply::Simple(b"OK"), Kind::Set) => {}
            (Reply::Bulk(Some(value)), Kind::Get) => self.judge_value(asked, value, pipeline),
            (Reply::Bulk(None), Kind::Get) => {
                if self.report.nil_is_fault || asked.sequence != ANY {
                    let text = format!("nil for key {}", asked.key);
                    self.report.fault(Fault::Missing, 1, self.author.client, &text);
                }
            }
            (other, kind) => {
                let text = format!("{kind:?} of key {} answered by {other:?}", asked.key);
                self.report.fault(Fault::Protocol, 1, self.author.client, &text);
            }
        }
    }

    #[inline]
    fn judge_value(&mut self, asked: Expected, value: &[u8], pipeline: &[Expected]) {
        let client = self.author.client;
        let stamp = self.values.read(value);
        let fits = stamp.is_some_and(|stamp| {
            let last = stamp.client == client && stamp.sequence == asked.sequence;
            stamp.key == asked.key && (asked.sequence == ANY || last)
        });
        // After a failed write it is unknown which value the key has, but the value must be the
        // key's.
        let open = || {
            stamp.is_some_and(|stamp| stamp.key == asked.key)
                && self.author.last_write(asked.key) == ANY
        };
        if !fits && !open() {
            self.report.wrong_value(client, asked, stamp, value, pipeline);
        }
    }
}
