//! Carries a plan out: phase by phase, host by host, each step once. It has no choices of its own;
//! what it adds is the second half of each pair of checks (the quorum, asked again under the lock
//! right before any node is taken away), and an honest account of where it stopped.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use crate::audit;
use crate::error::{Error, Kind, Result};
use crate::fleet::{Fleet, Member, Watch};
use crate::guard;
use crate::live;
use crate::lock::{Holder, Lock};
use crate::phases;
use crate::plan::{HostPlan, Plan, Quorum, Step};
use crate::procedures::Phase;
use crate::stamp;

/// Does `work` while the operator lock is held, and leaves an audit line with its result on every
/// connected host, whatever the result is. Answers with the audit id.
pub async fn under_lock<T>(
    inventory: &hosts::Inventory,
    fleet: &Fleet,
    what: &str,
    watch: &Watch,
    work: impl AsyncFnOnce() -> Result<T>,
) -> Result<(String, T)> {
    let internal = |cause: std::io::Error| Error::new(Kind::Internal, what).because(cause);
    let id = stamp::random_hex(6).map_err(internal)?;
    let (who, began) = (stamp::who(), SystemTime::now());
    let holder = Holder {
        token: id.clone(),
        who: who.clone(),
        what: what.to_owned(),
        since: stamp::rfc3339(began),
    };
    let lock = Lock::take(fleet, inventory.hosts.len(), holder, watch).await?;
    let outcome = work().await;
    let result = match &outcome {
        Ok(_) => "ok".to_owned(),
        // The kind and the place; what was said there may hold anything.
        Err(error) => {
            format!("{:?} {}: {}", error.kind, error.host.as_deref().unwrap_or("-"), error.doing)
        }
    };
    let duration = began.elapsed().unwrap_or_default();
    let entry = audit::Entry {
        id: id.clone(),
        time: stamp::rfc3339(began),
        who,
        cluster: inventory.cluster.name.clone(),
        what: what.to_owned(),
        result,
        duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
    };
    for host in audit::append(fleet, &entry).await {
        watch.step(&host, "could not write its audit line");
    }
    lock.release().await;
    outcome.map(|value| (id, value))
}

/// One run of a procedure.
#[derive(Debug)]
pub struct Run<'a> {
    pub inventory: &'a hosts::Inventory,
    pub plan: &'a Plan,
    pub fleet: &'a Fleet,
    pub watch: &'a Watch,
    /// For people whose nodes take long to replay.
    pub settle_within: Duration,
    /// For a new node that has much to copy.
    pub catch_up_within: Duration,
    /// What to type to go on after a run that broke off.
    pub resume: String,
    done: AtomicUsize,
}

impl<'a> Run<'a> {
    pub fn new(
        inventory: &'a hosts::Inventory,
        plan: &'a Plan,
        fleet: &'a Fleet,
        watch: &'a Watch,
    ) -> Self {
        Run {
            inventory,
            plan,
            fleet,
            watch,
            settle_within: Duration::from_secs(60),
            catch_up_within: Duration::from_secs(600),
            resume: "run the same command again".to_owned(),
            done: AtomicUsize::new(0),
        }
    }

    /// Walks a procedure. Once anything was changed, a failure is "partly applied": what was done
    /// stands, and running the verb again goes on from there.
    pub async fn walk(&self, procedure: &[Phase]) -> Result<()> {
        for (position, &phase) in procedure.iter().enumerate() {
            let outcome = match self.pause(phase.title()) {
                Ok(()) => self.phase(phase).await,
                Err(stopped) => Err(stopped),
            };
            if let Err(error) = outcome {
                return Err(self.account(phase, error, &procedure[position..]));
            }
        }
        Ok(())
    }

    async fn phase(&self, phase: Phase) -> Result<()> {
        match phase {
            Phase::Upload => phases::upload::run(self).await,
            Phase::Configure => phases::configure::run(self).await,
            Phase::Switch => phases::switch::run(self).await,
            Phase::Format => phases::format::run(self).await,
            Phase::Enroll => phases::enroll::run(self).await,
            Phase::Start => phases::start::run(self).await,
            Phase::Restart => phases::restart::run(self).await,
            Phase::Settle => phases::settle::run(self).await,
            Phase::Record => phases::record::run(self).await,
            Phase::Stop => phases::stop::run(self).await,
            Phase::Wipe => phases::wipe::run(self).await,
            Phase::StopFormer => phases::stop_former::run(self).await,
            Phase::Introduce => phases::introduce::run(self).await,
            Phase::Join => phases::change::join(self).await,
            Phase::CatchUp => phases::catch_up::run(self).await,
            Phase::Promote => phases::change::promote(self).await,
            Phase::TakeOver => phases::change::take_over(self).await,
            Phase::Leave => phases::change::leave(self).await,
            Phase::Retire => phases::retire::run(self).await,
            Phase::Rule => phases::change::rule(self).await,
        }
    }

    /// Between two steps: the place where Ctrl-C and a lost lock stop us.
    pub(crate) fn pause(&self, next: &str) -> Result<()> {
        match self.watch.stopped_because() {
            None => Ok(()),
            Some(why) => {
                Err(Error::new(Kind::Stopped, format!("stopped before: {next}")).because(why))
            }
        }
    }

    /// May these nodes be taken away now? Asked of the nodes themselves, right before it is done:
    /// since the plan was made another operator may have stopped one, or one may have died.
    pub(crate) async fn ask_the_guard(&self, taken: &BTreeSet<u32>) -> Result<()> {
        if self.plan.quorum == Quorum::MayGo {
            return Ok(());
        }
        let voters = self.voters().await;
        guard::may_take(&voters, taken).map_err(|refusal| {
            self.refused("take nodes away, as the cluster is now", refusal, taken)
        })
    }

    /// May these leave for good, while so many others come? Asked like the other one.
    pub(crate) async fn ask_the_guard_of_change(
        &self,
        joining: usize,
        leaving: &BTreeSet<u32>,
    ) -> Result<()> {
        let voters = self.voters().await;
        guard::may_change(&voters, joining, leaving).map_err(|refusal| {
            self.refused("change the voters, as the cluster is now", refusal, leaving)
        })
    }

    /// The voters as they are now. Under load nodes are seen a moment apart, and look as if they were
    /// behind each other: then a second look tells.
    async fn voters(&self) -> Vec<guard::Voter> {
        let max_lag_slots = self.inventory.guard.max_lag_slots;
        let look = live::look(self.fleet, |_| true).await;
        let hosts = &self.inventory.hosts;
        let voters = guard::voters(hosts, &look.by_node(), max_lag_slots, None);
        let lags = |voter: &guard::Voter| matches!(voter.standing, guard::Standing::Behind(_));
        if !voters.iter().any(lags) {
            return voters;
        }
        let goal = look.statuses().map(|status| status.chosen_slot).max();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let look = live::look(self.fleet, |_| true).await;
        guard::voters(hosts, &look.by_node(), max_lag_slots, goal)
    }

    fn refused(&self, doing: &str, refusal: guard::Refusal, taken: &BTreeSet<u32>) -> Error {
        let error = Error::new(Kind::Guard, doing)
            .because(refusal)
            .hint("look: `paxosctl status`; run the command again when the others have caught up");
        match taken.first().and_then(|id| self.inventory.host_by_id(*id)) {
            Some(host) if taken.len() == 1 => error.on(&*host.name),
            _ => error,
        }
    }

    /// Whether a host is one of the nodes that the plan is about, and not one that stays out.
    pub(crate) fn takes_part(&self, id: u32) -> bool {
        self.plan.hosts.iter().any(|host| host.id == id && !host.stays_out)
    }

    fn account(&self, phase: Phase, error: Error, left: &[Phase]) -> Error {
        let done = self.done.load(Ordering::SeqCst);
        if done == 0 {
            return error;
        }
        let mut hint = format!("what is done stands; {} to go on", self.resume);
        if let Some(first) = &error.hint {
            hint = format!("{first}; then {hint}");
        }
        let steps = if done == 1 { "step" } else { "steps" };
        let mut out =
            Error::new(Kind::Partly, format!("{} (after {done} {steps} were done)", phase.title()))
                .hint(hint);
        if self.plan.change.is_some() {
            let is_planned = |phase: &&Phase| {
                let mut steps = self.plan.hosts.iter().flat_map(|host| &host.steps);
                steps.any(|step| step.phase() == **phase)
            };
            let left: Vec<&str> = left.iter().filter(is_planned).map(|p| p.title()).collect();
            out = out.because(format!("left to do: {}", left.join(", ")));
        }
        let mut failure = error;
        failure.hint = None;
        out.others = std::mem::take(&mut failure.others);
        out.others.insert(0, failure);
        out
    }

    /// Does `work` on each host whose plan has a step that `which` admits.
    pub(crate) async fn steps<F, Work>(
        &self,
        phase: Phase,
        which: impl Fn(&HostPlan, &Step) -> bool,
        work: F,
    ) -> Result<()>
    where
        F: Fn(Member, HostPlan) -> Work,
        Work: Future<Output = Result<()>> + Send + 'static,
    {
        let planned = |id: u32| self.plan.hosts.iter().find(|host| host.id == id);
        let wanted = |host: &hosts::Host| {
            planned(host.id).is_some_and(|plan| plan.steps.iter().any(|step| which(plan, step)))
        };
        if !self.fleet.members.iter().any(|member| wanted(&member.host)) {
            return Ok(());
        }
        self.watch.phase(phase.title());
        let outcomes = self
            .fleet
            .each(wanted, |member| {
                let plan = planned(member.host.id).expect("only planned hosts were chosen").clone();
                work(member, plan)
            })
            .await;
        let mut errors = Vec::new();
        for (_, outcome) in outcomes {
            match outcome {
                Ok(()) => self.did_one(),
                Err(error) => errors.push(error),
            }
        }
        Error::all(errors).map_or(Ok(()), Err)
    }

    pub(crate) fn did_one(&self) {
        self.done.fetch_add(1, Ordering::SeqCst);
    }
}
