//! Who else may write what mptm believes, and look into what it has made.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use crate::lab::{self, Outcome};
use crate::snapshot::{Machine, Pinned};

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

const INSIST: &str = "or insist with --allow-insecure-config";

#[test]
fn files_that_others_may_write() {
    lab::run("trusted: files of others", |lab| {
        let node = &lab.a;
        node.write(&node.plain_file());
        let file = node.file.display().to_string();
        let before = Machine::look(lab);
        let refused = |parts: &[&str]| {
            for command in ["apply", "apply --dry-run"] {
                node.mptm(command).refused(&[parts, &[INSIST]].concat());
            }
            // These do nothing that the file says.
            node.mptm("check").done();
        };

        mode(&node.file, 0o666);
        refused(&[&format!("others may write to {file} (mode 0666)"), &format!("chmod go-w {file}")]);
        mode(&node.file, 0o644);
        chown(&node.file, Some(65534), None).unwrap();
        refused(&[
            &format!("{file} belongs to user 65534, who may change it"),
            &format!("chown root {file}"),
        ]);
        // Root's word only: the user who called sudo may as well.
        for (user, code) in [("65534", 0), ("65533", 1)] {
            let outcome = Outcome::of(node.command("apply --dry-run").env("SUDO_UID", user));
            assert_eq!(outcome.code, Some(code), "{outcome:?}");
        }
        chown(&node.file, Some(0), Some(65534)).unwrap();
        mode(&node.file, 0o664);
        refused(&["(mode 0664)"]);
        chown(&node.file, None, Some(0)).unwrap();
        node.mptm("apply --dry-run").done();
        mode(&node.file, 0o644);

        mode(lab.dir.path(), 0o777);
        refused(&[&format!("others may write to the directory {} (mode 0777)", lab.dir.path().display())]);
        // As /tmp: what is there is safe from others.
        mode(lab.dir.path(), 0o1777);
        node.mptm("apply --dry-run").done();
        mode(lab.dir.path(), 0o755);

        let drop_ins = lab.path("a.d");
        fs::create_dir(&drop_ins).unwrap();
        fs::write(drop_ins.join("x.toml"), "").unwrap();
        mode(&drop_ins.join("x.toml"), 0o646);
        refused(&["a.d/x.toml (mode 0646)"]);
        mode(&drop_ins.join("x.toml"), 0o644);
        mode(&drop_ins, 0o777);
        refused(&["the directory ", "a.d (mode 0777)"]);
        // Whose else the directory is, may put anything there.
        mode(&drop_ins, 0o755);
        chown(&drop_ins, Some(65534), None).unwrap();
        refused(&["a.d belongs to user 65534"]);
        fs::remove_dir_all(&drop_ins).unwrap();

        // A link, and what it leads to.
        let real = lab.path("real");
        fs::create_dir(&real).unwrap();
        fs::rename(&node.file, real.join("x.toml")).unwrap();
        symlink("real/x.toml", &node.file).unwrap();
        node.mptm("apply --dry-run").done();
        mode(&real, 0o777);
        refused(&["the directory ", "real (mode 0777)"]);
        Machine::look(lab).must_be(&before);

        node.mptm("apply --allow-insecure-config").done();
        let pinned = Pinned::look(&node.pin);
        node.mptm("apply").refused(&[INSIST]);
        // Not by accident: what the environment says is not enough.
        Outcome::of(node.command("apply").env("MPTM_ALLOW_INSECURE_CONFIG", "1")).refused(&[INSIST]);
        node.mptm_reading("apply -c -", &node.plain_file()).nothing_to_do();
        Pinned::look(&node.pin).must_be(&pinned);
        // Taking everything down asks no file.
        node.mptm("down").done();
    });
}

#[test]
fn nobody_else_sees_the_pins() {
    lab::run("trusted: pins", |lab| {
        let node = &lab.a;
        // Even if somebody has made the directory for it.
        fs::create_dir(&node.pin).unwrap();
        mode(&node.pin, 0o755);
        node.apply(&node.plain_file());
        for directory in ["", "maps", "programs", "links"] {
            let metadata = fs::metadata(node.pin.join(directory)).unwrap();
            assert_eq!((metadata.mode() & 0o7777, metadata.uid()), (0o700, 0), "{directory:?}");
        }
        let pins = ["maps", "programs", "links"];
        for pin in pins.iter().flat_map(|kind| fs::read_dir(node.pin.join(kind)).unwrap()) {
            let metadata = pin.unwrap().metadata().unwrap();
            assert_eq!(metadata.mode() & 0o077, 0);
        }
    });
}
