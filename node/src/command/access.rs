//! Who may do what: passwords against configured digests, roles against commands.

use sha2::{Digest, Sha256};

use super::context::{ConnectionState, Identity, Role, User};
use super::spec::{Class, Spec};
use crate::resp::Reply;

const WRONG_PASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";

/// The identity behind a name and a password. Without users there is one, `default`, who needs
/// none. A wrong name takes as long as a wrong password: every digest is looked at, whole.
pub fn authenticate(users: &[User], name: &[u8], password: &[u8]) -> Result<Identity, Reply> {
    if users.is_empty() && name == b"default" {
        return Ok(Identity::default_user());
    }
    let digest: [u8; 32] = Sha256::digest(password).into();
    let mut found = None;
    for user in users {
        let named = user.name.as_bytes() == name;
        for known in &user.password_sha256 {
            if same(known, &digest) & named {
                found = Some(user);
            }
        }
    }
    let user = found.ok_or(Reply::error(WRONG_PASS))?;
    Ok(Identity { name: user.name.clone(), role: user.role })
}

/// Compares all bytes, wherever the first difference is.
fn same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    let difference =
        one.iter().zip(other).fold(0u8, |difference, (one, other)| difference | (one ^ other));
    std::hint::black_box(difference) == 0
}

/// Whether this connection may run this command.
pub fn authorize(connection: &ConnectionState, spec: &Spec) -> Result<(), Reply> {
    let role = match &connection.identity {
        Some(identity) => identity.role,
        None if spec.needs_no_auth() => return Ok(()),
        None => return Err(Reply::error("NOAUTH Authentication required.")),
    };
    match (role, spec.class) {
        (Role::ReadOnly, Class::Write) => Err(Reply::error(format!(
            "NOPERM this user has no permissions to run the '{}' command",
            spec.name
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> Vec<User> {
        let digest = |password: &str| Sha256::digest(password).into();
        vec![
            User {
                name: "app".to_owned(),
                role: Role::ReadWrite,
                password_sha256: vec![digest("old"), digest("new")],
            },
            User {
                name: "viewer".to_owned(),
                role: Role::ReadOnly,
                password_sha256: vec![digest("see")],
            },
        ]
    }

    #[test]
    fn passwords_belong_to_their_user() {
        let check = |name: &str, password: &str, role: Option<Role>| {
            let identity = authenticate(&users(), name.as_bytes(), password.as_bytes());
            assert_eq!(identity.ok().map(|identity| identity.role), role, "{name} {password}");
        };
        check("app", "old", Some(Role::ReadWrite));
        check("app", "new", Some(Role::ReadWrite));
        check("viewer", "see", Some(Role::ReadOnly));
        check("viewer", "new", None);
        check("app", "", None);
        check("default", "new", None);
        assert!(authenticate(&[], b"default", b"anything").is_ok());
        assert!(authenticate(&[], b"app", b"anything").is_err());
    }

    #[test]
    fn roles_bound_commands() {
        let mut connection = ConnectionState::new(1, String::new(), String::new(), false, 0);
        let may = |connection: &ConnectionState, argv: &[&[u8]]| {
            authorize(connection, super::super::check(argv).unwrap())
        };
        let error = may(&connection, &[b"GET", b"k"]).unwrap_err();
        assert_eq!(error, Reply::error("NOAUTH Authentication required."));
        assert!(may(&connection, &[b"HELLO", b"3"]).is_ok());
        connection.identity = Some(Identity { name: "viewer".to_owned(), role: Role::ReadOnly });
        assert!(may(&connection, &[b"GET", b"k"]).is_ok());
        let error = may(&connection, &[b"SET", b"k", b"v"]).unwrap_err();
        let text = "NOPERM this user has no permissions to run the 'set' command";
        assert_eq!(error, Reply::error(text));
    }
}
