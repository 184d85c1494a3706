//! Copies the release to hosts that lack it, and proves that it runs there before anything rests
//! on it.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::execute::Run;
use crate::plan::Step;
use crate::procedures::Phase;
use crate::ssh::quote;

const SHOW_EVERY: Duration = Duration::from_millis(200);

pub(crate) async fn run(run: &Run<'_>) -> Result<()> {
    let watch = run.watch.clone();
    run.steps(
        Phase::Upload,
        |_, step| matches!(step, Step::Upload { .. }),
        move |member, plan| {
            let watch = watch.clone();
            async move {
                let release = plan.release.expect("a host to upload to has a release");
                let program = release.program_on(&member.host);
                let folder = member.host.releases_dir().join(release.name());
                let make = format!("mkdir -p {}", quote(&folder.display().to_string()));
                member.session.run("make the release folder", &make).await?;
                watch.step(
                    &plan.name,
                    format!("copy {} ({} KiB)", release.name(), release.bytes >> 10),
                );
                let began = Instant::now();
                let shown = Mutex::new(began);
                let progress = |sent: u64, all: u64| {
                    let mut shown = shown.lock().expect("no holder panics");
                    if shown.elapsed() >= SHOW_EVERY {
                        *shown = Instant::now();
                        let rate = sent as f64 / 1048576.0 / began.elapsed().as_secs_f64();
                        let percent = sent * 100 / all.max(1);
                        watch.tick(&plan.name, format!("copy {percent} % {rate:.0} MiB/s"));
                    }
                };
                member
                    .session
                    .upload(&release.path, &program, 0o755, &release.digest, &progress)
                    .await?;
                let try_it = format!("{} --version", quote(&program));
                member.session.run("run the copied program", &try_it).await?;
                Ok(())
            }
        },
    )
    .await
}
