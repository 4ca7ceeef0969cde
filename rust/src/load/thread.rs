//! One load thread: an event loop that owns its clients.
//!
//! A turn: wait; read each ready client once and check its replies; send the next batch, in one
//! write, to each client that has all of them.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::client::Client;
use super::config::LoadConfig;
use super::pace::Pace;
use super::request::Requests;
use super::tally::{Fault, LoadReport};

const EVENTS: usize = 1024; // a turn
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 }; // how soon a stop is noticed
const NO_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 }; // on time to the microsecond
const LINK_BITS: u32 = 8; // 256 nodes
const GRACE: u64 = 5_000_000_000; // ns to wait for replies after the end

/// Clients, and what they share.
pub struct LoadThread<'a> {
    clients: Vec<Option<Client>>, // None: closed after a fault
    requests: Requests,
    pipeline: usize,
    pace: Option<Pace>, // None: a closed loop
    begin: u64,         // ns from the start: the warm-up is over, replies count
    end: u64,           // ns from the start: nothing more is sent
    stop: &'a AtomicBool,
    report: LoadReport,
    scratch: Vec<u8>,
    epoll: OwnedFd,
    busy: usize, // clients with a batch under way
    clock: Instant,
}

impl<'a> LoadThread<'a> {
    /// Takes over connected `clients`; nothing is sent yet.
    pub fn new(
        clients: Vec<Client>,
        requests: Requests,
        pace: Option<Pace>,
        config: &LoadConfig,
        stop: &'a AtomicBool,
    ) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        for (token, client) in clients.iter().enumerate() {
            for (number, link) in client.links.iter().enumerate() {
                epoll::add(&epoll, &link.socket, data(token, number), EventFlags::IN)?;
            }
        }
        Ok(Self {
            clients: clients.into_iter().map(Some).collect(),
            requests,
            pipeline: config.pipeline,
            pace,
            begin: nanoseconds(config.warmup),
            end: nanoseconds(config.warmup + config.seconds),
            stop,
            report: LoadReport::new(config.preloaded),
            scratch: Vec::new(),
            epoll,
            busy: 0,
            clock: Instant::now(),
        })
    }

    /// Runs until the time is over, `stop` is set, or nothing is left to send.
    pub fn run(mut self) -> io::Result<LoadReport> {
        let cpu_before = thread_cpu();
        self.clock = Instant::now();
        for token in 0..self.clients.len() {
            self.next(token, 0);
        }
        let tick = if self.pace.is_some() { NO_WAIT } else { TICK };
        let mut events = Vec::<Event>::with_capacity(EVENTS);
        let mut now = elapsed(self.clock);
        while self.has_more(now) && now < self.end.saturating_add(GRACE) {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&tick)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            for event in &events {
                let (data, flags) = (event.data.u64(), event.flags);
                let token = usize::try_from(data >> LINK_BITS).unwrap_or(usize::MAX);
                self.serve(token, usize::from(data.to_le_bytes()[0]), flags);
            }
            now = elapsed(self.clock);
            while let Some((token, due)) = self.pace.as_mut().and_then(|pace| pace.due(now)) {
                self.send(token, due);
            }
        }
        self.give_up();
        let counted = now.min(self.end).saturating_sub(self.begin);
        self.report.seconds = Duration::from_nanos(counted).as_secs_f64();
        self.report.busy_seconds = Duration::from_nanos(now).as_secs_f64();
        self.report.cpu_seconds = thread_cpu().saturating_sub(cpu_before).as_secs_f64();
        Ok(self.report)
    }

    /// Handles one event.
    fn serve(&mut self, token: usize, link: usize, flags: EventFlags) {
        if flags.contains(EventFlags::OUT) {
            self.flush(token, link);
        }
        if !flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            return;
        }
        let Some(client) = self.clients[token].as_mut() else {
            return;
        };
        match client.receive(link, &mut self.scratch, self.requests.values(), &mut self.report) {
            Ok(0) => {}
            Ok(settled) => {
                let done = client.outstanding() == 0;
                let now = elapsed(self.clock);
                let measured = now >= self.begin && now < self.end;
                self.report.settle(settled, client.age(now), measured);
                if done {
                    client.busy = false;
                    self.busy -= 1;
                    let due = now - client.age(now);
                    self.next(token, due);
                }
            }
            Err(error) => self.close(token, &error),
        }
    }

    /// True while replies are owed, or, at a given rate, more is to be sent.
    fn has_more(&self, now: u64) -> bool {
        self.busy > 0 || (self.pace.is_some() && now < self.end)
    }

    /// Schedules the batch after the one that was due at `before`: now, or at its time.
    fn next(&mut self, token: usize, before: u64) {
        let now = elapsed(self.clock);
        match self.pace.as_mut() {
            None => self.send(token, now),
            Some(pace) => match pace.after(before) {
                due if due <= now => self.send(token, due),
                due => pace.wait(token, due),
            },
        }
    }

    /// Sends a batch that is `due`, unless the time is over or all is sent.
    fn send(&mut self, token: usize, due: u64) {
        let Some(client) = self.clients[token].as_mut() else {
            return;
        };
        if elapsed(self.clock) >= self.end {
            return;
        }
        client.fill(&mut self.requests, self.pipeline, due);
        if client.outstanding() > 0 {
            client.busy = true;
            self.busy += 1;
            for link in 0..client.links.len() {
                self.flush(token, link);
            }
        }
    }

    /// Writes; asks for OUT only while the socket is full.
    fn flush(&mut self, token: usize, number: usize) {
        let Some(client) = self.clients[token].as_mut() else {
            return;
        };
        let link = &mut client.links[number];
        let result = link.flush(&mut self.report).and_then(|done| {
            if link.waits_to_write == done {
                link.waits_to_write = !done;
                let wanted = if done { EventFlags::IN } else { EventFlags::IN | EventFlags::OUT };
                epoll::modify(&self.epoll, &link.socket, data(token, number), wanted)?;
            }
            Ok(())
        });
        if let Err(error) = result {
            self.close(token, &error);
        }
    }

    /// The only place where a connection ends early.
    fn close(&mut self, token: usize, error: &io::Error) {
        let Some(client) = self.clients[token].take() else {
            return;
        };
        let (number, lost) = (client.author.client, client.outstanding());
        if client.busy {
            self.busy -= 1;
        }
        let text = format!("connection closed: {error}");
        self.report.fault(Fault::Protocol, 1, number, &text);
        self.report.fault(Fault::Unanswered, lost, number, "lost with the connection");
    }

    /// Counts the replies that never came.
    pub(crate) fn give_up(&mut self) {
        if self.stop.load(Ordering::Relaxed) {
            return; // this load did not wait for it
        }
        for client in self.clients.iter().flatten() {
            let lost = client.outstanding();
            let text = format!("{lost} replies never came");
            self.report.fault(Fault::Unanswered, lost, client.author.client, &text);
        }
    }
}

/// The poller's data of a link: the client, and which of its links.
fn data(token: usize, link: usize) -> EventData {
    EventData::new_u64((token << LINK_BITS | link) as u64)
}

#[inline]
#[allow(clippy::cast_possible_truncation)] // wraps after 584 years
fn elapsed(clock: Instant) -> u64 {
    clock.elapsed().as_nanos() as u64
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // checked: 0 to a day
fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
