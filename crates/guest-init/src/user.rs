//! Whose rights the application runs with: `user[:group]` of the image, resolved in the image's own `/etc/passwd` and
//! `/etc/group`, as container runtimes do.
//!
//! - A user is a name of `/etc/passwd` or a number. A number need not be listed; its group is then 0.
//! - No user or group has the number 4294967295: to the system calls that change ids it means "as before", which is root.
//! - With a group, that group alone is the process's. Without, the user's own group of `/etc/passwd` and, as
//!   supplementary ones, every group of `/etc/group` that lists the user.

use std::fs;
use std::path::Path;

/// The ids of a process.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// User id.
    pub(crate) uid: u32,
    /// Group id.
    pub(crate) gid: u32,
    /// Supplementary group ids.
    pub(crate) groups: Vec<u32>,
    /// Home directory, `/` for a user who is not listed.
    pub(crate) home: String,
}

/// Why a user or group could not be resolved.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UserError {
    /// Neither a listed name nor a number.
    #[error("the image's user `{0}` is not in its /etc/passwd")]
    NoSuchUser(String),
    /// Neither a listed name nor a number.
    #[error("the image's group `{0}` is not in its /etc/group")]
    NoSuchGroup(String),
    /// A number that stands for no user or group.
    #[error("the image's user `{0}` cannot be: {UNCHANGED} is no number of a user or group")]
    Reserved(String),
}

/// What `setresuid` and its like take for "leave it as it is".
const UNCHANGED: u32 = u32::MAX;

/// Resolves `user[:group]` with the files of this root file system. A missing file lists nobody.
pub(crate) fn resolve(user: &str, root: &Path) -> Result<Identity, UserError> {
    let read = |name: &str| fs::read(root.join(name)).unwrap_or_default();
    let passwd = read("etc/passwd");
    let group = read("etc/group");
    resolve_in(
        user,
        &String::from_utf8_lossy(&passwd),
        &String::from_utf8_lossy(&group),
    )
}

fn resolve_in(whole: &str, passwd: &str, group: &str) -> Result<Identity, UserError> {
    let (user, group_name) = match whole.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (whole, None),
    };

    // An empty user, as in `:group`, is root.
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok();
    let listed = passwd
        .lines()
        .filter_map(Passwd::parse)
        .find(|entry| entry.name == user)
        .or_else(|| {
            let uid = number?;
            passwd
                .lines()
                .filter_map(Passwd::parse)
                .find(|entry| entry.uid == uid)
        });
    let (name, uid, own_gid, home) = match (listed, number) {
        (Some(entry), _) => (Some(entry.name), entry.uid, entry.gid, entry.home),
        (None, Some(uid)) => (None, uid, 0, "/"),
        (None, None) => return Err(UserError::NoSuchUser(user.to_owned())),
    };

    let (gid, groups) = match (group_name, name) {
        (Some(group_name), _) => (group_id(group_name, group)?, Vec::new()),
        (None, Some(name)) => (own_gid, groups_of(name, group)),
        (None, None) => (own_gid, Vec::new()),
    };
    if [uid, gid].contains(&UNCHANGED) || groups.contains(&UNCHANGED) {
        return Err(UserError::Reserved(whole.to_owned()));
    }
    Ok(Identity {
        uid,
        gid,
        groups,
        home: home.to_owned(),
    })
}

fn group_id(name: &str, group: &str) -> Result<u32, UserError> {
    group
        .lines()
        .filter_map(Group::parse)
        .find(|entry| entry.name == name)
        .map(|entry| entry.gid)
        .or_else(|| name.parse().ok())
        .ok_or_else(|| UserError::NoSuchGroup(name.to_owned()))
}

fn groups_of(user: &str, group: &str) -> Vec<u32> {
    group
        .lines()
        .filter_map(Group::parse)
        .filter(|entry| entry.members.split(',').any(|member| member == user))
        .map(|entry| entry.gid)
        .collect()
}

/// A line of `/etc/passwd`: `name:password:uid:gid:comment:home:shell`.
struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> Passwd<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).filter(|home| !home.is_empty()).unwrap_or("/");
        Some(Self { name, uid, gid, home })
    }
}

/// A line of `/etc/group`: `name:password:gid:member,member`.
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl<'a> Group<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(Self {
            name,
            gid,
            members: fields.next().unwrap_or(""),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
                          broken line\n\
                          www:x:33:34:web:/var/www:/usr/sbin/nologin\n\
                          1000:x:7:7::/odd:\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\naudio:x:29:www,root\nssl:x:110:other,www\n";

    fn identity(uid: u32, gid: u32, groups: &[u32], home: &str) -> Identity {
        Identity {
            uid,
            gid,
            groups: groups.to_vec(),
            home: home.to_owned(),
        }
    }

    #[test]
    fn users_and_groups_resolve_as_in_container_runtimes() {
        let cases = [
            ("root", identity(0, 0, &[29], "/root")),
            ("www", identity(33, 34, &[29, 110], "/var/www")),
            ("33", identity(33, 34, &[29, 110], "/var/www")),
            ("www:audio", identity(33, 29, &[], "/var/www")),
            ("www:4711", identity(33, 4711, &[], "/var/www")),
            ("www:", identity(33, 34, &[29, 110], "/var/www")),
            ("12345", identity(12345, 0, &[], "/")),
            ("12345:web", identity(12345, 34, &[], "/")),
            (":web", identity(0, 34, &[], "/root")),
            // A name made of digits goes before the number.
            ("1000", identity(7, 7, &[], "/odd")),
        ];
        for (user, expected) in cases {
            assert_eq!(resolve_in(user, PASSWD, GROUP), Ok(expected), "{user}");
        }
    }

    #[test]
    fn unknown_names_are_named() {
        assert_eq!(
            resolve_in("nobody", PASSWD, GROUP),
            Err(UserError::NoSuchUser("nobody".into()))
        );
        assert_eq!(
            resolve_in("www:staff", PASSWD, GROUP),
            Err(UserError::NoSuchGroup("staff".into()))
        );
        assert_eq!(
            resolve_in("-1", PASSWD, GROUP),
            Err(UserError::NoSuchUser("-1".into()))
        );
    }

    #[test]
    fn an_image_without_the_files_has_numbers_only() {
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(resolve("8:9", empty.path()), Ok(identity(8, 9, &[], "/")));
        assert_eq!(
            resolve("www", empty.path()),
            Err(UserError::NoSuchUser("www".into()))
        );
    }

    #[test]
    fn a_number_that_would_leave_root_as_it_is_is_refused() {
        let passwd = "sly:x:4294967295:5::/:\nfox:x:5:4294967295::/:\nhen:x:6:6::/:\n";
        let group = "den:x:4294967295:hen\n";
        for user in [
            "4294967295",
            "sly",
            "fox",
            "hen",
            "6",
            "5:4294967295",
            "5:den",
            "4294967295:6",
        ] {
            assert_eq!(
                resolve_in(user, passwd, group),
                Err(UserError::Reserved(user.into())),
                "{user}"
            );
        }
        assert_eq!(
            UserError::Reserved("sly".into()).to_string(),
            "the image's user `sly` cannot be: 4294967295 is no number of a user or group"
        );
        assert_eq!(
            resolve_in("4294967294:6", passwd, group),
            Ok(identity(u32::MAX - 1, 6, &[], "/"))
        );
    }

    proptest! {
        #[test]
        fn any_files_are_read_without_panic(user in ".{0,8}", passwd in "[a-z0-9:\n]{0,60}", group in "[a-z0-9:,\n]{0,60}") {
            let _ = resolve_in(&user, &passwd, &group);
        }
    }
}
