//! The verbs that change the membership: look, show what would be done, ask, do it under the lock, and
//! say how redundant the cluster is then.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use deploy::Kind;
use deploy::execute::{self, Run};
use deploy::facts::Facts;
use deploy::fleet::{Fleet, Watch};
use deploy::live::{self, Redundancy};
use deploy::plan::rules::Rules;
use deploy::plan::{self, Plan, Wish, member};
use deploy::procedures;
use deploy::release::Release;
use hosts::Inventory;

use crate::cli::Context;
use crate::commands::{plan as plan_verb, up};
use crate::desk;
use crate::error::Error;
use crate::ui;

pub(super) struct Asked {
    pub(super) verb: Verb,
    pub(super) node: String,
    pub(super) catch_up: Duration,
    pub(super) lock_wait: Option<Duration>,
}

pub(super) enum Verb {
    Add,
    Promote,
    Remove,
    Replace { old: String },
    Rules(Rules),
}

impl Asked {
    /// As it is typed.
    fn words(&self) -> String {
        let node = &self.node;
        match &self.verb {
            Verb::Add => format!("member add {node}"),
            Verb::Promote => format!("member promote {node}"),
            Verb::Remove => format!("member remove {node}"),
            Verb::Replace { old } => format!("member replace {old} {node}"),
            Verb::Rules(rules) => format!("member rules {}", rules.words().join(" ")),
        }
    }

    fn plan(&self, wish: &Wish<'_>, facts: &BTreeMap<u32, Facts>) -> deploy::Result<Plan> {
        let node = &self.node;
        match &self.verb {
            Verb::Add => member::add(wish, facts, node),
            Verb::Promote => member::promote(wish, facts, node),
            Verb::Remove => member::remove(wish, facts, node),
            Verb::Replace { old } => member::replace(wish, facts, old, node),
            Verb::Rules(rules) => plan::rules::change(wish, facts, *rules),
        }
    }

    fn procedure(&self) -> &'static [procedures::Phase] {
        match self.verb {
            Verb::Add | Verb::Promote | Verb::Replace { .. } => procedures::ADD_MEMBER,
            Verb::Remove => procedures::REMOVE_MEMBER,
            Verb::Rules(_) => procedures::CHANGE_RULES,
        }
    }
}

struct Work<'a> {
    asked: &'a Asked,
    inventory: &'a Inventory,
    releases: BTreeMap<String, Release>,
    fleet: Fleet,
}

pub(super) async fn run(asked: &Asked, context: &Context) -> Result<ExitCode, Error> {
    let began = Instant::now();
    if !desk::selection(context).is_all() {
        return Err(Error::usage("`member` names its node itself").hint("leave out -n and -l"));
    }
    let inventory = desk::load_inventory(context)?;
    desk::say_insecure(context, &inventory);
    up::refuse_unsettled(context, &inventory)?;
    let releases = match asked.verb {
        Verb::Remove | Verb::Rules(_) => BTreeMap::new(),
        _ => desk::releases(&inventory)?,
    };
    let hosts: Vec<&hosts::Host> = inventory.hosts.iter().collect();
    let (fleet, errors) = desk::dial(context, &inventory, &hosts).await;
    for error in &errors {
        // Members may be dead: that is what some of these verbs are for.
        if error.host.as_deref() != Some(&asked.node) {
            context.ui.warn(format!("{error}; left out"));
        }
    }
    let work = Work { asked, inventory: &inventory, releases, fleet };
    let is_patient = up::patience(context, began, asked.lock_wait);
    let watch = desk::watch(context);
    loop {
        let shown = work.look().await.map_err(|error| with_ssh_troubles(error, &errors))?;
        if !context.json() {
            context.ui.data(plan_verb::render(context, &shown));
        }
        if shown.is_empty() || context.global.dry_run {
            report(context, &work, &shown, None, began).await;
            return Ok(ui::OK);
        }
        context.ui.confirm(&question(asked, &shown))?;
        let words = asked.words();
        let outcome = up::wait_for_lock(context, &is_patient, || {
            let carry_out = || work.carry_out(context, &shown, &watch);
            execute::under_lock(&inventory, &work.fleet, &words, &watch, carry_out)
        })
        .await;
        match outcome {
            Ok((audit_id, ())) => {
                report(context, &work, &shown, Some(&audit_id), began).await;
                return Ok(ui::OK);
            }
            Err(error) if error.kind == Kind::Moved && is_patient() => {
                context.ui.say("the hosts have changed meanwhile; planning anew");
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// When the host that matters cannot be reached, ssh's own words say more than the plan's.
fn with_ssh_troubles(error: deploy::Error, troubles: &[deploy::Error]) -> Error {
    let about =
        |trouble: &&deploy::Error| trouble.host == error.host || error.kind == Kind::Unavailable;
    let troubles: Vec<deploy::Error> = troubles.iter().filter(about).cloned().collect();
    match (error.kind, deploy::Error::all(troubles)) {
        (Kind::Ssh, Some(trouble)) => trouble.into(),
        (Kind::Unavailable, Some(trouble)) => Error::from(error).and(trouble.into()),
        _ => error.into(),
    }
}

fn question(asked: &Asked, plan: &Plan) -> String {
    let cluster = &plan.cluster;
    match (&asked.verb, plan.change.as_ref().and_then(|change| change.leaves.as_ref())) {
        (Verb::Remove, Some(leaver)) => {
            format!("Remove {} (id {}) from cluster {cluster}, for good?", leaver.name, leaver.id)
        }
        (Verb::Replace { .. }, Some(leaver)) => format!(
            "Replace {} (id {}) of cluster {cluster} by {}? {0} never comes back.",
            leaver.name, leaver.id, asked.node
        ),
        _ => format!("Do this to cluster {cluster}?"),
    }
}

impl Work<'_> {
    fn words(&self) -> String {
        self.asked.words()
    }

    async fn look(&self) -> deploy::Result<Plan> {
        let (facts, errors) = deploy::facts::survey(&self.fleet).await;
        let wish = Wish {
            inventory: self.inventory,
            releases: &self.releases,
            fresh_uuid: "",
            skipped: &[],
        };
        let plan = self.asked.plan(&wish, &facts);
        // A host that could not be read matters only when something is to be done there.
        match plan {
            Err(error) if error.kind == Kind::Ssh => {
                let mut own = errors.into_iter().filter(|other| other.host == error.host);
                Err(own.next().unwrap_or(error))
            }
            plan => plan,
        }
    }

    /// Under the lock: looks again, and does what was shown or nothing.
    async fn carry_out(
        &self,
        context: &Context,
        shown: &Plan,
        watch: &Watch,
    ) -> deploy::Result<()> {
        let plan = self.look().await?;
        if plan.goes_beyond(shown) {
            return Err(plan::moved("carry out the plan that was shown"));
        }
        let mut run = Run::new(self.inventory, &plan, &self.fleet, watch);
        run.catch_up_within = self.asked.catch_up;
        let flag = desk::inventory_flag(context);
        run.resume = format!("run `paxosctl{flag} {}` again", self.words());
        run.walk(self.asked.procedure()).await
    }
}

async fn report(
    context: &Context,
    work: &Work<'_>,
    plan: &Plan,
    audit_id: Option<&str>,
    began: Instant,
) {
    let dry_run = context.global.dry_run && !plan.is_empty();
    let redundancy = match dry_run {
        true => None,
        false => Some(live::redundancy(&work.fleet).await),
    };
    let seconds = began.elapsed().as_secs_f64();
    let delete = lines_to_delete(work.inventory, plan);
    if context.json() {
        let own = serde_json::json!({
            "dry_run": context.global.dry_run,
            "plan": plan,
            "redundancy": redundancy,
            "delete_from_inventory": delete.as_ref().map(|lines| &lines.text),
        });
        desk::json_result(context, audit_id, seconds, own);
        return;
    }
    if dry_run {
        return context.ui.say("dry run: nothing was changed");
    }
    if let Some(redundancy) = redundancy {
        context.ui.data(in_words(work.asked, &redundancy));
    }
    let words = work.words();
    if let Some(leaver) = plan.change.as_ref().and_then(|change| change.leaves.as_ref()) {
        say_what_to_delete(context, work, leaver, delete.as_ref());
    }
    if let Some(id) = audit_id {
        context.ui.say(format!("{words}: done in {seconds:.1} s, audit {id}"));
    }
    let flag = desk::inventory_flag(context);
    let undo = match work.asked.verb {
        Verb::Add => format!("   undo: paxosctl{flag} member remove {}", work.asked.node),
        // What has left never comes back, and a voter never becomes a learner again.
        Verb::Promote | Verb::Remove | Verb::Replace { .. } | Verb::Rules(_) => String::new(),
    };
    context.ui.say(format!("next: paxosctl{flag} status{undo}"));
}

/// `redundancy restored: 3 of 3 voters caught up, can lose 1 more`.
fn in_words(asked: &Asked, redundancy: &Redundancy) -> String {
    let Redundancy { caught_up, voters, missing, .. } = redundancy;
    let whole = caught_up == voters;
    let word = match asked.verb {
        Verb::Replace { .. } if whole => "redundancy restored",
        _ => "redundancy",
    };
    let mut text = format!(
        "{word}: {caught_up} of {voters} voters caught up, can lose {} more",
        redundancy.headroom()
    );
    for (name, standing) in missing {
        text.push_str(&format!("; {name} {standing}"));
    }
    text
}

fn lines_to_delete(inventory: &Inventory, plan: &Plan) -> Option<hosts::edit::Lines> {
    let leaver = plan.change.as_ref()?.leaves.as_ref()?;
    let host = inventory.host_by_id(leaver.id)?;
    hosts::edit::lines_of_host(&inventory.text, &host.name).ok()
}

fn say_what_to_delete(
    context: &Context,
    work: &Work<'_>,
    leaver: &member::Leaver,
    lines: Option<&hosts::edit::Lines>,
) {
    let (name, id, origin) = (&leaver.name, leaver.id, &work.inventory.origin);
    let spent = format!("{name} is no member any more; id {id} is never used again");
    if work.inventory.host_by_id(id).is_none() {
        return context.ui.say(spent);
    }
    match lines {
        Some(lines) => {
            let text: String = lines
                .text
                .lines()
                .map(|line| format!("  | {line}").trim_end().to_owned() + "\n")
                .collect();
            context.ui.say(format!(
                "{spent}. Delete lines {} to {} of {origin}:\n{text}",
                lines.first, lines.last
            ));
        }
        None => context.ui.say(format!("{spent}. Delete its host from {origin}")),
    }
}
