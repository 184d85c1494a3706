//! Which words an inventory may contain. What goes on an ssh command line, into a unit file or a
//! shell line is admitted by a positive list of characters and never begins with `-`: an inventory
//! is data from elsewhere, and `-oProxyCommand=…` as an address must not run code.
//!
//! Each function answers with the parsed value, or with the sentence that explains the refusal.

use std::net::{IpAddr, Ipv6Addr};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

type Parsed<T> = Result<T, String>;

/// `^[a-z][a-z0-9-]{0,30}$`
pub(crate) fn cluster_name(text: &str) -> Parsed<String> {
    let mut bytes = text.bytes();
    let good = bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|byte| is_lower_or_digit(byte) || byte == b'-')
        && text.len() <= 31;
    if good {
        Ok(text.to_owned())
    } else {
        Err("a cluster's name is a lower-case letter, then up to 30 lower-case letters, digits or `-`".to_owned())
    }
}

/// `^[a-z0-9][a-z0-9.-]{0,62}$`
pub(crate) fn host_name(text: &str) -> Parsed<String> {
    let mut bytes = text.bytes();
    let good = bytes.next().is_some_and(is_lower_or_digit)
        && bytes.all(|byte| is_lower_or_digit(byte) || b".-".contains(&byte))
        && text.len() <= 63;
    if good {
        Ok(text.to_owned())
    } else {
        Err("a host's name is up to 63 lower-case letters, digits, `.` or `-`, the first a letter or digit".to_owned())
    }
}

/// What ssh or a peer dials: an IP address, a host name, or an alias of the ssh configuration.
pub(crate) fn address(text: &str) -> Parsed<String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return if ip.is_unspecified() {
            Err(format!("{text} means every address of a machine, so nobody can dial it"))
        } else {
            Ok(text.to_owned())
        };
    }
    let mut bytes = text.bytes();
    let good = bytes.next().is_some_and(|first| first.is_ascii_alphanumeric() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && text.len() <= 253;
    if good {
        return Ok(text.to_owned());
    }
    Err(if text.starts_with('-') {
        "an address never begins with `-`: ssh would read it as an option".to_owned()
    } else if text.contains('@') {
        "an address holds no user: write ssh = { user = \"…\" }".to_owned()
    } else if text.starts_with('[') && text.trim_matches(['[', ']']).parse::<Ipv6Addr>().is_ok() {
        "an IPv6 address is written without brackets".to_owned()
    } else if text.contains(':') {
        "an address holds no port: write ssh = { port = … } for ssh, or client_port, peer_port, http_port".to_owned()
    } else {
        "an address is an IP address, or letters, digits, `.`, `_` and `-`, not beginning with `-` or `.`".to_owned()
    })
}

/// A login name: `^[A-Za-z_][A-Za-z0-9._-]{0,31}$`.
pub(crate) fn login(text: &str) -> Parsed<String> {
    let mut bytes = text.bytes();
    let good = bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && text.len() <= 32;
    if good {
        Ok(text.to_owned())
    } else {
        Err("a login name is up to 32 letters, digits, `.`, `_` or `-`, beginning with a letter or `_`".to_owned())
    }
}

/// A jump host: `[user@]host[:port]`.
pub(crate) fn jump(text: &str) -> Parsed<String> {
    let (user, rest) = match text.split_once('@') {
        Some((user, rest)) => (Some(user), rest),
        None => (None, text),
    };
    user.map(login).transpose()?;
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (host, Some(port)),
        _ => (rest, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0)) {
        return Err(format!("`{}` is no port: 1 to 65535", port.unwrap_or_default()));
    }
    address(host)?;
    Ok(text.to_owned())
}

/// A folder on a host: absolute, plain characters only, and none that belongs to the system (a
/// typo in a path must never make `down --wipe` delete a machine).
pub(crate) fn host_dir(text: &str) -> Parsed<PathBuf> {
    const SYSTEM: [&str; 26] = [
        "/",
        "/bin",
        "/boot",
        "/dev",
        "/etc",
        "/home",
        "/lib",
        "/lib64",
        "/media",
        "/mnt",
        "/opt",
        "/proc",
        "/root",
        "/run",
        "/sbin",
        "/srv",
        "/sys",
        "/tmp",
        "/usr",
        "/usr/bin",
        "/usr/lib",
        "/usr/local",
        "/var",
        "/var/lib",
        "/var/log",
        "/var/tmp",
    ];
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err("a folder on a host is an absolute path: which folder a relative one means depends on who logs in".to_owned());
    }
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._+@-".contains(&byte)) {
        return Err("a folder on a host is written with letters, digits and `/._+@-` only, so that no shell or unit file reads more into it".to_owned());
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err("a folder on a host is written without `..`".to_owned());
    }
    let clean: PathBuf = path.components().collect();
    let system = ["/proc", "/sys", "/dev", "/bin", "/sbin", "/boot"];
    if SYSTEM.iter().any(|folder| Path::new(folder) == clean)
        || system.iter().any(|folder| clean.starts_with(folder))
    {
        return Err(
            "this folder belongs to the system: choose one that holds nothing else".to_owned()
        );
    }
    Ok(clean)
}

/// `250ms`, `5s`, `2m`, `1h`
pub(crate) fn duration(text: &str) -> Parsed<Duration> {
    let (digits, unit) = split_number(text);
    let number = digits.parse::<u64>().ok();
    let milliseconds = match (number, unit) {
        (Some(number), "ms") => Some(number),
        (Some(number), "s") => number.checked_mul(1_000),
        (Some(number), "m") => number.checked_mul(60_000),
        (Some(number), "h") => number.checked_mul(3_600_000),
        _ => None,
    };
    match milliseconds {
        Some(0) => Err("a length of time is longer than nothing".to_owned()),
        Some(milliseconds) => Ok(Duration::from_millis(milliseconds)),
        None => {
            Err("a length of time is written like \"250ms\", \"5s\", \"2m\" or \"1h\"".to_owned())
        }
    }
}

/// `512M`, `4G`: powers of 1024, as systemd reads them.
pub(crate) fn size(text: &str) -> Parsed<u64> {
    let (digits, unit) = split_number(text);
    let shift = match unit {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err("a size is written like \"512M\" or \"4G\"".to_owned()),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.filter(|bytes| *bytes > 0).ok_or("a size is written like \"512M\" or \"4G\"".to_owned())
}

/// A label's key, its value, or a user's name: up to 63 of `[A-Za-z0-9._-]`, beginning with a
/// letter or digit.
pub(crate) fn word(text: &str) -> Parsed<String> {
    let mut bytes = text.bytes();
    let good = bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && text.len() <= 63;
    if good {
        Ok(text.to_owned())
    } else {
        Err("write up to 63 letters, digits, `.`, `_` or `-`, beginning with a letter or digit"
            .to_owned())
    }
}

/// The sha-256 digest of a password: 64 lower-case hex digits.
pub(crate) fn digest(text: &str) -> Parsed<String> {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() == 64 && text.bytes().all(hex) {
        Ok(text.to_owned())
    } else {
        Err("a password stands here as its sha-256 digest, 64 lower-case hex digits".to_owned())
    }
}

/// `10.0.0.0/8`, `fd00::/8`, or one address.
pub(crate) fn cidr(text: &str) -> Parsed<String> {
    let (ip, bits) = match text.split_once('/') {
        Some((ip, bits)) => (ip, bits.parse::<u8>().ok()),
        None => (text, Some(0)),
    };
    let good = match (ip.parse::<IpAddr>(), bits) {
        (Ok(IpAddr::V4(_)), Some(bits)) => bits <= 32,
        (Ok(IpAddr::V6(_)), Some(bits)) => bits <= 128,
        _ => false,
    };
    if good {
        Ok(text.to_owned())
    } else {
        Err("a range of addresses is written like \"10.0.0.0/8\"".to_owned())
    }
}

fn is_lower_or_digit(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn split_number(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_ssh_reads_as_an_option_is_admitted() {
        for text in [
            "-oProxyCommand=touch x",
            "-l",
            "--",
            "-",
            "",
            " n1",
            "n1;id",
            "$(id)",
            "a b",
            "a\nb",
            "`id`",
            "ssh://h",
            "h:22",
            "ops@h",
            "[::1]",
            "0.0.0.0",
            "::",
        ] {
            assert!(address(text).is_err(), "{text:?} was admitted as an address");
        }
        for text in ["-oProxyCommand=x", "root ", "a@b", "a:b", "$USER", "1abc", ""] {
            assert!(login(text).is_err(), "{text:?} was admitted as a login name");
        }
        for text in ["-W", "ops@-oProxyCommand=x", "-o@h", "h:0", "h:70000", "h:x", "a,b", ""] {
            assert!(jump(text).is_err(), "{text:?} was admitted as a jump host");
        }
    }

    #[test]
    fn ordinary_words_are_admitted() {
        for text in ["10.0.0.11", "::1", "fd00::2", "n1", "db-1.example.org", "my_alias"] {
            assert_eq!(address(text).as_deref(), Ok(text));
        }
        for text in ["bastion", "ops@bastion", "ops@bastion:8022", "10.0.0.1:22", "fd00::2"] {
            assert_eq!(jump(text).as_deref(), Ok(text));
        }
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(size("4G"), Ok(4 << 30));
        assert_eq!(cidr("10.0.0.0/8").as_deref(), Ok("10.0.0.0/8"));
    }

    #[test]
    fn lengths_and_sizes_without_sense_are_refused() {
        for text in ["5", "s", "5 s", "0s", "1.5s", "-1s", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
        for text in ["", "G", "0", "4g", "4GB", "99999999999T"] {
            assert!(size(text).is_err(), "{text:?}");
        }
        for text in ["10.0.0.0/33", "x/8", "10.0.0/8", "fd00::/129"] {
            assert!(cidr(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn pitfall_97_a_typo_in_a_folder_cannot_name_the_system() {
        for text in [
            "/",
            "/etc",
            "/var/lib/",
            "/usr//local",
            "/opt/.",
            "/proc/1",
            "/opt/../etc",
            "opt/paxos",
            "~/paxos",
            "/opt/pa xos",
            "/opt/%h",
        ] {
            assert!(host_dir(text).is_err(), "{text:?} was admitted");
        }
        assert_eq!(host_dir("/opt//paxos/"), Ok(PathBuf::from("/opt/paxos")));
    }
}
