//! `paxosctl user`: who may connect. A password is made here, shown once, and kept nowhere; the
//! inventory gets its digest.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use hosts::{User, UserRole, edit};
use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};

use crate::cli::Context;
use crate::desk;
use crate::error::{Error, Word};
use crate::ui;

/// Add clients, give them new passwords, remove them: changes the inventory file.
///
/// The password alone goes to stdout, once: PASSWORD=$(paxosctl user add app).
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Admit a new user, and show its password.
    Add {
        name: String,
        #[arg(long, value_enum, default_value_t = Role::Rw)]
        role: Role,
    },
    /// Give a user a second password, then end the first one with --finish.
    Rotate {
        name: String,
        /// Forget the older password; clients use the newer one by now.
        #[arg(long)]
        finish: bool,
    },
    /// Remove a user.
    Remove { name: String },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    /// Reads only.
    Ro,
    /// Reads and writes.
    Rw,
}

/// What a change comes to.
struct Change {
    text: String,
    password: Option<String>,
    said: String,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let path = context.global.inventory.as_path();
    if path == Path::new("-") {
        return Err(Error::usage("change an inventory that comes from stdin")
            .hint("name a file with -i: paxosctl -i hosts/inventories/mine.toml user …"));
    }
    let inventory = desk::load_inventory_quietly(context)?;
    let change = change(&args.what, &inventory)?;
    // Whatever the edit did to the text, it must be an inventory, and the one that was meant.
    let folder = path.parent().unwrap_or(Path::new("."));
    let after = hosts::parse(&change.text, &inventory.origin, folder, hosts::Knowledge::default());
    let after = after
        .map_err(|problems| Error::new(Word::Internal, "edit the inventory").because(problems))?;
    assert_eq!(after.hosts.len(), inventory.hosts.len(), "an edit of users lost a host");
    if context.global.dry_run {
        context.ui.say(format!("would have {}; nothing was changed", change.said));
        return Ok(ui::OK);
    }
    replace(path, &change.text)
        .map_err(|error| Error::usage(format!("write {}", path.display())).because(error))?;
    show(&change, &args.what, context);
    Ok(ui::OK)
}

fn change(what: &What, inventory: &hosts::Inventory) -> Result<Change, Error> {
    let text = &inventory.text;
    match what {
        What::Add { name, role } => {
            let (password, digest) = new_password()?;
            let role = match role {
                Role::Ro => UserRole::Ro,
                Role::Rw => UserRole::Rw,
            };
            check_name(name)?;
            let user = User { name: name.clone(), role, password_sha256: vec![digest] };
            let text = edit::add_user(text, &user).map_err(of_edit)?;
            Ok(Change {
                text,
                password: Some(password),
                said: format!("added user {name} ({role})"),
            })
        }
        What::Rotate { name, finish: false } => {
            let user = find(inventory, name)?;
            let Some(newest) = user.password_sha256.last() else { return Err(no_password(name)) };
            if user.password_sha256.len() > 1 {
                return Err(Error::usage(format!("user {name} has two passwords already"))
                    .hint(format!("end the older one: paxosctl user rotate {name} --finish")));
            }
            let (password, digest) = new_password()?;
            let text =
                edit::set_passwords(text, name, &[newest.clone(), digest]).map_err(of_edit)?;
            let said = format!("given user {name} a second password; the first still works");
            Ok(Change { text, password: Some(password), said })
        }
        What::Rotate { name, finish: true } => {
            let user = find(inventory, name)?;
            let [_, newest] = user.password_sha256.as_slice() else {
                return Err(Error::usage(format!(
                    "user {name} has one password: nothing to finish"
                ))
                .hint(format!("begin: paxosctl user rotate {name}")));
            };
            let text =
                edit::set_passwords(text, name, std::slice::from_ref(newest)).map_err(of_edit)?;
            let said = format!("ended the older password of user {name}");
            Ok(Change { text, password: None, said })
        }
        What::Remove { name } => {
            find(inventory, name)?;
            let text = edit::remove_user(text, name).map_err(of_edit)?;
            Ok(Change { text, password: None, said: format!("removed user {name}") })
        }
    }
}

fn show(change: &Change, what: &What, context: &Context) {
    let flag = desk::inventory_flag(context);
    if context.json() {
        let (What::Add { name, .. } | What::Rotate { name, .. } | What::Remove { name }) = what;
        context.ui.json(&serde_json::json!({
            "schema_version": 1, "user": name, "password": change.password,
        }));
        return;
    }
    context.ui.say(format!("{} in {}", change.said, context.global.inventory.display()));
    if let Some(password) = &change.password {
        context.ui.say("the password, shown this once; the inventory holds its sha-256 only:");
        context.ui.data(password);
    }
    context.ui.hint(format!("bring it to the nodes: paxosctl{flag} up"));
}

fn find<'a>(inventory: &'a hosts::Inventory, name: &str) -> Result<&'a User, Error> {
    inventory.users.iter().find(|user| user.name == name).ok_or_else(|| {
        let names: Vec<&str> = inventory.users.iter().map(|user| user.name.as_str()).collect();
        let known = match names.as_slice() {
            [] => "there is no user yet: paxosctl user add app".to_owned(),
            names => format!("there are {}", names.join(", ")),
        };
        Error::usage(format!("there is no user {name} in {}", inventory.origin)).hint(known)
    })
}

/// Refused here with one line, before the inventory's own check would show a text not yet written.
fn check_name(name: &str) -> Result<(), Error> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let first = name.chars().next().is_some_and(|first| first.is_ascii_alphanumeric());
    if first && name.len() <= 63 && name.chars().all(good) {
        return Ok(());
    }
    Err(Error::usage(format!("a user cannot be called {name:?}"))
        .hint("letters, digits, `.`, `_` and `-`, the first a letter or digit"))
}

fn no_password(name: &str) -> Error {
    Error::usage(format!("user {name} has no password"))
        .hint(format!("paxosctl user remove {name}, then add it again"))
}

/// 256 bits, and the digest of the text that a client will send.
fn new_password() -> Result<(String, String), Error> {
    let mut bytes = [0; 32];
    OsRng
        .try_fill_bytes(&mut bytes)
        .map_err(|error| Error::new(Word::Internal, "draw a password").because(error))?;
    let password = hex(&bytes);
    let digest = hex(&Sha256::digest(password.as_bytes()));
    Ok((password, digest))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The whole new text or the old one, with the file's own mode; a link stays a link.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let path = fs::canonicalize(path)?;
    let partial = path.with_extension("partial");
    fs::write(&partial, text)?;
    let mode = fs::metadata(&path)?.permissions().mode();
    fs::set_permissions(&partial, fs::Permissions::from_mode(mode))?;
    fs::File::open(&partial)?.sync_all()?;
    fs::rename(&partial, &path)
}

fn of_edit(error: edit::EditError) -> Error {
    Error::usage("edit the inventory").because(error)
}
