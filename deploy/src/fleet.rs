//! All hosts of a command at once: connected in parallel within a bound, each with its own outcome,
//! and what happens told as it happens.

use std::sync::{Arc, OnceLock};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::error::{Error, Kind, Result};
use crate::ssh::{Destination, HostKeys, Session};

/// One host with the way to it.
#[derive(Clone, Debug)]
pub struct Member {
    pub host: Arc<hosts::Host>,
    pub session: Session,
}

/// The connected hosts of a command, in the inventory's order.
#[derive(Clone, Debug)]
pub struct Fleet {
    pub members: Vec<Member>,
    parallel: usize,
}

/// What a long command says while it works. The front desk shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A phase begins.
    Phase { title: &'static str },
    /// A host does something that a log should keep.
    Step { host: String, text: String },
    /// A figure that changes many times a second.
    Tick { host: String, text: String },
}

/// The listener for events, and the ways in which a command is asked to stop between two steps.
#[derive(Clone)]
pub struct Watch {
    tell: Arc<dyn Fn(Event) + Send + Sync>,
    stop: Arc<OnceLock<String>>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("stop", &self.stop).finish_non_exhaustive()
    }
}

impl Watch {
    pub fn new(tell: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Watch { tell: Arc::new(tell), stop: Arc::default() }
    }

    /// Says nothing to nobody.
    pub fn silent() -> Self {
        Watch::new(|_| {})
    }

    /// Asks to stop before the next step. The first reason is the one that is told.
    pub fn stop(&self, because: impl Into<String>) {
        let _ = self.stop.set(because.into());
    }

    /// Why, once it was asked to.
    pub fn stopped_because(&self) -> Option<&str> {
        self.stop.get().map(String::as_str)
    }

    pub fn phase(&self, title: &'static str) {
        (self.tell)(Event::Phase { title });
    }

    pub fn step(&self, host: &str, text: impl Into<String>) {
        (self.tell)(Event::Step { host: host.to_owned(), text: text.into() });
    }

    pub fn tick(&self, host: &str, text: impl Into<String>) {
        (self.tell)(Event::Tick { host: host.to_owned(), text: text.into() });
    }
}

/// Dials hosts, and says of each that cannot be reached why.
pub async fn connect(hosts: &[&hosts::Host], parallel: usize) -> (Fleet, Vec<Error>) {
    let hosts: Vec<Arc<hosts::Host>> = hosts.iter().map(|host| Arc::new((*host).clone())).collect();
    let outcomes = on_each(hosts.clone(), parallel, |host| async move {
        Session::connect(&destination(&host)).await
    })
    .await;
    let (mut members, mut errors) = (Vec::new(), Vec::new());
    for (host, outcome) in hosts.into_iter().zip(outcomes) {
        match outcome {
            Ok(session) => members.push(Member { host, session }),
            Err(error) => errors.push(error),
        }
    }
    (Fleet { members, parallel }, errors)
}

/// Where an inventory's host is dialled.
pub fn destination(host: &hosts::Host) -> Destination {
    let ssh = &host.ssh;
    Destination {
        name: host.name.clone(),
        address: host.address.clone(),
        user: ssh.user.clone(),
        port: ssh.port,
        identity_file: ssh.identity_file.clone(),
        jump: ssh.jump.clone(),
        known_hosts: ssh.known_hosts.clone(),
        host_keys: match ssh.host_keys {
            hosts::HostKeys::Strict => HostKeys::Strict,
            hosts::HostKeys::AcceptNew => HostKeys::AcceptNew,
        },
        connect_timeout: ssh.connect_timeout,
    }
}

impl Fleet {
    pub fn member(&self, id: u32) -> Option<&Member> {
        self.members.iter().find(|member| member.host.id == id)
    }

    /// Does `work` on the hosts that `which` admits, in parallel; outcomes in the hosts' order.
    pub async fn each<T, F, Work>(
        &self,
        which: impl Fn(&hosts::Host) -> bool,
        work: F,
    ) -> Vec<(Member, Result<T>)>
    where
        T: Send + 'static,
        F: Fn(Member) -> Work,
        Work: Future<Output = Result<T>> + Send + 'static,
    {
        let chosen: Vec<Member> =
            self.members.iter().filter(|member| which(&member.host)).cloned().collect();
        let outcomes = on_each(chosen.clone(), self.parallel, work).await;
        chosen.into_iter().zip(outcomes).collect()
    }

    /// Like `each`, where one failure is a failure of all; every host still ends its work.
    pub async fn all<T, F, Work>(
        &self,
        which: impl Fn(&hosts::Host) -> bool,
        work: F,
    ) -> Result<Vec<(Member, T)>>
    where
        T: Send + 'static,
        F: Fn(Member) -> Work,
        Work: Future<Output = Result<T>> + Send + 'static,
    {
        let (mut done, mut errors) = (Vec::new(), Vec::new());
        for (member, outcome) in self.each(which, work).await {
            match outcome {
                Ok(value) => done.push((member, value)),
                Err(error) => errors.push(error),
            }
        }
        match Error::all(errors) {
            None => Ok(done),
            Some(error) => Err(error),
        }
    }
}

async fn on_each<A, T, F, Work>(inputs: Vec<A>, parallel: usize, work: F) -> Vec<Result<T>>
where
    T: Send + 'static,
    F: Fn(A) -> Work,
    Work: Future<Output = Result<T>> + Send + 'static,
{
    let turnstile = Arc::new(Semaphore::new(parallel.max(1)));
    let mut tasks = JoinSet::new();
    let count = inputs.len();
    for (index, input) in inputs.into_iter().enumerate() {
        let (work, turnstile) = (work(input), turnstile.clone());
        tasks.spawn(async move {
            let _turn = turnstile.acquire().await.expect("the turnstile is never closed");
            (index, work.await)
        });
    }
    let mut outcomes: Vec<Option<Result<T>>> = (0..count).map(|_| None).collect();
    while let Some(joined) = tasks.join_next().await {
        match joined {
            Ok((index, outcome)) => outcomes[index] = Some(outcome),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    let lost = || Err(Error::new(Kind::Internal, "work on a host"));
    outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(lost)).collect()
}
