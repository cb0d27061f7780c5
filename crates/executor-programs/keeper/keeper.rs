//! What a keeper has, and its loop: a child has ended, somebody connects, the client asks.

use core::ffi::CStr;

use crate::logs::Logs;
use crate::messages::{Process, Record};
use crate::process::Starter;
use crate::sys::{self, Event, Result};
use crate::table::Table;
use crate::wire::{MESSAGE_LIMIT, NAME_LIMIT, Reason};

pub const LISTENER: i32 = 3;
pub const DIRECTORY: i32 = 4;
const SOCKET: &CStr = c"keeper";

/// How long the first client, or one that has connected and said nothing, may take.
const PATIENCE: u64 = 10_000_000_000;

/// How many messages are answered before anything else is looked at.
const AT_ONCE: usize = 64;

/// The numbers under which epoll reports.
const CHILDREN: u64 = 0;
const NEWCOMERS: u64 = 1;
const CLIENT: u64 = 2;
/// And the number of a pipe's descriptor.
const PIPES: u64 = 16;

/// The embedder's process that is connected.
#[derive(Clone, Copy)]
pub struct Client {
    pub fd: i32,
    pub pid: u32,
    pub since: u64,
    pub was_greeted: bool,
}

/// A child that is not as any other.
#[derive(Clone, Copy)]
pub struct Known {
    pub process: Process,
    pub flags: u32,
}

/// A descriptor with a name.
#[derive(Clone, Copy)]
pub struct Held {
    pub fd: i32,
    pub len: u8,
    pub name: [u8; NAME_LIMIT],
}

impl Held {
    pub fn name(&self) -> &[u8] {
        self.name.get(..usize::from(self.len)).unwrap_or_default()
    }
}

pub struct Keeper {
    pub client: Option<Client>,
    pub known: Table<Known>,
    pub records: Table<Record>,
    /// The number of the last record.
    pub last: u64,
    pub held: Table<Held>,
    pub logs: Logs,
    pub starter: Starter,
    /// The limit of descriptors before it was raised.
    pub limit: [u64; 2],
    pub message: Table<u8>,
    pub answer: Table<u8>,
    pub was_greeted: bool,
    epoll: i32,
    children: i32,
    /// A descriptor that is closed where another one is needed and there is none left.
    spare: i32,
    started: u64,
    /// The socket's file, by which another one of the same name is known.
    socket: [u64; 2],
}

impl Keeper {
    pub const fn new() -> Self {
        Self {
            client: None,
            known: Table::new(),
            records: Table::new(),
            last: 0,
            held: Table::new(),
            logs: Logs::new(),
            starter: Starter::new(),
            limit: [0; 2],
            message: Table::new(),
            answer: Table::new(),
            was_greeted: false,
            epoll: -1,
            children: -1,
            spare: -1,
            started: 0,
            socket: [0; 2],
        }
    }

    /// Sets this process up, at its beginning and after an upgrade.
    pub fn settle(&mut self) -> Result<()> {
        sys::block_signals();
        sys::settle(c"longshore-keep")?;
        let [_, hard] = self.limit;
        let _kept = sys::set_descriptor_limit([hard, hard]);
        sys::set_close_on_exec(LISTENER, true)?;
        sys::set_close_on_exec(DIRECTORY, true)?;
        self.message.reserve(MESSAGE_LIMIT)?;
        self.answer.reserve(MESSAGE_LIMIT)?;
        (self.epoll, self.children) = (sys::epoll()?, sys::watch_children()?);
        sys::epoll_add(self.epoll, self.children, CHILDREN)?;
        sys::epoll_add(self.epoll, LISTENER, NEWCOMERS)?;
        if let Some(client) = self.client {
            sys::epoll_add(self.epoll, client.fd, CLIENT)?;
        }
        self.spare = sys::duplicate(LISTENER, 0).unwrap_or(-1);
        self.started = sys::uptime();
        self.socket = sys::identity(DIRECTORY, SOCKET).unwrap_or_default();
        Ok(())
    }

    pub fn work(mut self) -> ! {
        let mut events = [Event::default(); 8];
        loop {
            self.reap();
            if self.is_done() {
                self.leave();
            }
            let timeout = if self.was_greeted { self.logs.timeout(sys::uptime()) } else { 1000 };
            let count = sys::epoll_wait(self.epoll, &mut events, timeout);
            for event in events.iter().take(count) {
                match event.number {
                    // Which signals have come does not matter: every child that has ended is reaped above.
                    CHILDREN => drop(sys::read(self.children, &mut [0; 128])),
                    NEWCOMERS => self.accept(),
                    CLIENT => self.serve(),
                    number => self.logs.wake((number - PIPES) as i32),
                }
            }
            self.logs.work();
        }
    }

    /// Whether there is nothing that anybody could come back for.
    fn is_done(&self) -> bool {
        let is_empty = self.records.as_slice().is_empty() && self.held.as_slice().is_empty();
        let is_over = match self.client {
            _ if !self.was_greeted => sys::uptime().saturating_sub(self.started) > PATIENCE,
            Some(_) => false,
            // Somebody may be connecting.
            None => sys::poll(LISTENER, 0) == 0,
        };
        is_empty && is_over && !has_children()
    }

    /// Exits. The socket is removed, unless another keeper's has its name by now.
    pub fn leave(&self) -> ! {
        if sys::identity(DIRECTORY, SOCKET) == Ok(self.socket) {
            let _removed = sys::unlink(DIRECTORY, SOCKET);
        }
        sys::exit(0)
    }

    /// Somebody has connected. He is the client if he is of the same user, and the former client has hung up.
    fn accept(&mut self) {
        let accepted = sys::accept(LISTENER).or_else(|_| self.with_spare(|| sys::accept(LISTENER)));
        let Ok(fd) = accepted else {
            // There are no descriptors, or whoever it was has gone.
            sys::pause();
            return;
        };
        let Some([pid, _]) = sys::peer(fd).ok().filter(|[_, user]| *user == sys::own_user()) else {
            return sys::close(fd);
        };
        let has_hung_up = |client: &Client| sys::poll(client.fd, 0) & sys::HUNG_UP != 0;
        if self.client.as_ref().is_some_and(has_hung_up) {
            // What it has asked before it went is done.
            self.serve();
            self.hang_up();
        }
        let is_silent =
            |client: &Client| !client.was_greeted && sys::uptime().saturating_sub(client.since) > PATIENCE;
        if self.client.as_ref().is_some_and(is_silent) {
            self.hang_up();
        }
        if let Some(client) = self.client {
            self.refuse(fd, 0, (Reason::Taken, client.pid));
            // What was not read would have the kernel throw the answer away.
            let _hello = sys::receive(fd, self.message.buffer());
            return sys::close(fd);
        }
        match sys::epoll_add(self.epoll, fd, CLIENT) {
            Ok(()) => self.client = Some(Client { fd, pid, since: sys::uptime(), was_greeted: false }),
            Err(_) => sys::close(fd),
        }
    }

    /// Calls a function that needs a descriptor, with one more to be had.
    pub fn with_spare<T>(&mut self, needs_one: impl FnOnce() -> T) -> T {
        sys::close(self.spare);
        let done = needs_one();
        self.spare = sys::duplicate(LISTENER, 0).unwrap_or(-1);
        done
    }

    /// Has it reported when something is written to a pipe, once for each time.
    pub fn watch_pipe(&self, pipe: i32) -> Result<()> {
        sys::epoll_add_edge(self.epoll, pipe, PIPES + pipe as u64)
    }

    /// The client may have the pipe as well, so that it would be reported after this process has closed it.
    pub fn unwatch_pipe(&self, pipe: i32) {
        sys::epoll_remove(self.epoll, pipe);
    }

    pub fn hang_up(&mut self) {
        if let Some(client) = self.client.take() {
            sys::close(client.fd);
        }
    }

    /// Answers what the client has asked.
    fn serve(&mut self) {
        for _ in 0..AT_ONCE {
            let Some(client) = self.client else { return };
            let mut message = core::mem::replace(&mut self.message, Table::new());
            match sys::receive(client.fd, message.buffer()) {
                Err(sys::EAGAIN | sys::EINTR) => {
                    self.message = message;
                    return;
                }
                Err(_) | Ok((0, _)) => self.hang_up(),
                Ok((count, received)) => {
                    let bytes = message.buffer().get_mut(..count).unwrap_or_default();
                    self.handle(client, bytes, received);
                    // It may have secrets in it: those of an environment.
                    bytes.fill(0);
                }
            }
            self.message = message;
        }
    }
}

pub fn has_children() -> bool {
    sys::next_ended() != Err(sys::ECHILD)
}
