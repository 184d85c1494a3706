//! Files to a host: through `cat > x.part` on the session, then checked on the far side, synced and
//! renamed. A file is there whole and right, or not at all.

use std::path::Path;
use std::time::Duration;

use openssh::Stdio;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{MARK, Session, quote, split_mark};
use crate::error::{Kind, Result};

const CHUNK_BYTES: usize = 256 << 10;
/// A link slower than this is broken for our purpose.
const BYTES_PER_SECOND_MIN: u64 = 64 << 10;

/// Bytes sent so far, of all.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Send + Sync);

impl Session {
    /// Writes `content` to `path` with `mode`, atomically.
    pub async fn write_file(&self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let doing = format!("write {path}");
        let digest = crate::digest::of_bytes(content);
        self.put(&doing, path, mode, &digest, content.len() as u64, content, &|_, _| {}).await
    }

    /// Sends a local file whose digest is known.
    pub async fn upload(
        &self,
        local: &Path,
        path: &str,
        mode: u32,
        digest: &str,
        progress: Progress<'_>,
    ) -> Result<()> {
        let doing = format!("copy {} to {path}", local.display());
        let file = tokio::fs::File::open(local)
            .await
            .map_err(|error| self.error(Kind::Usage, &doing).because(error))?;
        let length = file
            .metadata()
            .await
            .map_err(|error| self.error(Kind::Usage, &doing).because(error))?
            .len();
        self.put(&doing, path, mode, digest, length, file, progress).await
    }

    #[expect(clippy::too_many_arguments, reason = "the one private road of the two above")]
    async fn put(
        &self,
        doing: &str,
        path: &str,
        mode: u32,
        digest: &str,
        length: u64,
        mut source: impl tokio::io::AsyncRead + Unpin,
        progress: Progress<'_>,
    ) -> Result<()> {
        let bound = Duration::from_secs(30 + length / BYTES_PER_SECOND_MIN);
        let command = receive_command(path, mode, digest, bound);
        let lost = |error: openssh::Error| self.lost(doing, &error);
        let send = async {
            let mut child = self
                .inner()
                .raw_command(command)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .await
                .map_err(lost)?;
            let mut to_child = child.stdin().take().expect("stdin was piped");
            let mut from_child = child.stdout().take().expect("stdout was piped");
            let mut errors = child.stderr().take().expect("stderr was piped");
            let mut buffer = vec![0; CHUNK_BYTES];
            let mut sent = 0;
            loop {
                let count = source
                    .read(&mut buffer)
                    .await
                    .map_err(|error| self.error(Kind::Usage, doing).because(error))?;
                if count == 0 {
                    break;
                }
                // If the far side has given up, its own words are below.
                if to_child.write_all(&buffer[..count]).await.is_err() {
                    break;
                }
                sent += count as u64;
                progress(sent, length);
            }
            let _ = to_child.flush().await;
            drop(to_child);
            let (mut stdout, mut stderr) = (String::new(), String::new());
            let (out, err) = tokio::join!(
                from_child.read_to_string(&mut stdout),
                errors.read_to_string(&mut stderr)
            );
            out.and(err).map_err(|error| self.error(Kind::Ssh, doing).because(error))?;
            let _ = child.wait().await;
            Ok((stdout, stderr))
        };
        let (stdout, stderr) = tokio::time::timeout(bound, send).await.unwrap_or_else(|_| {
            Err(self.error(Kind::Ssh, doing).because(format!("not done within {bound:?}")))
        })?;
        match split_mark(&stdout) {
            Some((_, 0)) => Ok(()),
            Some((_, status)) => Err(self
                .error(Kind::Remote, doing)
                .because(stderr.trim())
                .because(format!("exit status {status}"))),
            None => Err(self
                .error(Kind::Ssh, doing)
                .because("the connection was lost before the file was whole")
                .hint("nothing was replaced on the host; run the command again")),
        }
    }
}

/// Takes stdin into a `.part` file of its own, so that two senders never mix, and renames it once
/// its digest is right and it is synced.
fn receive_command(path: &str, mode: u32, digest: &str, bound: Duration) -> String {
    let folder = Path::new(path).parent().unwrap_or(Path::new("/")).display().to_string();
    let (path, folder) = (quote(path), quote(&folder));
    let script = format!(
        "set -e; umask 077; part={path}.$$.part; trap 'rm -f \"$part\"' EXIT; \
         cat > \"$part\"; \
         got=$(sha256sum < \"$part\" | cut -d' ' -f1); \
         if [ \"$got\" != {digest} ]; then echo \"digest is $got, expected {digest}\" >&2; exit 65; fi; \
         chmod {mode:o} \"$part\"; sync \"$part\"; mv -f \"$part\" {path}; sync {folder}"
    );
    let seconds = bound.as_secs();
    let inner =
        format!("timeout -k 2 {seconds} sh -c {}; printf '\\n{MARK} %d\\n' $?", quote(&script));
    format!("sh -c {}", quote(&inner))
}
