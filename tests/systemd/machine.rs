//! A real systemd, booted in namespaces: gone when the test ends, however it ends.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// Where tests/prepare.sh puts a Debian.
fn root() -> PathBuf {
    std::env::var_os("MPTM_DEBIAN").map_or_else(|| "/var/cache/mptm-tests/debian".into(), PathBuf::from)
}

pub struct Machine {
    unshare: Child,
    init: String,
    added: TempDir,
}

impl Machine {
    /// Boots one, with the units of examples/systemd and these files, and units that targets want; None, and a line that says why, where that can't be.
    pub fn boot(test: &str, files: &[(&str, &str)], wants: &[(&str, &str)]) -> Option<Self> {
        let skip = |why: &str| {
            // Not eprintln: the test harness would swallow it.
            let _ = writeln!(io::stderr(), "SKIPPED ({why}): {test}");
        };
        // SAFETY: it takes nothing and cannot fail.
        if unsafe { libc::geteuid() } != 0 {
            skip("needs root");
            return None;
        }
        let root = root();
        if !root.join("usr/lib/systemd/systemd").exists() {
            skip(&format!("no Debian in {}, which tests/prepare.sh test makes", root.display()));
            return None;
        }
        let added = tempfile::tempdir().unwrap();
        let put = |path: &str, bytes: &[u8]| {
            let path = added.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            let mode = if bytes.starts_with(b"#!") { 0o755 } else { 0o644 };
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let units = Path::new(HERE).join("examples/systemd");
        for unit in fs::read_dir(units).unwrap() {
            let unit = unit.unwrap();
            let name = unit.file_name().into_string().unwrap();
            put(&format!("etc/systemd/system/{name}"), &fs::read(unit.path()).unwrap());
        }
        files.iter().for_each(|(path, text)| put(path, text.as_bytes()));
        for (target, unit) in wants {
            let wants = added.path().join(format!("etc/systemd/system/{target}.wants"));
            fs::create_dir_all(&wants).unwrap();
            symlink(format!("/etc/systemd/system/{unit}"), wants.join(unit)).unwrap();
        }
        let bin = added.path().join("usr/local/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_mptm"), bin.join("mptm")).unwrap();
        // It becomes the machine's root.
        fs::set_permissions(added.path(), fs::Permissions::from_mode(0o755)).unwrap();

        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child"]);
        command.arg(Path::new(HERE).join("tests/systemd/boot.sh")).arg(&root).arg(added.path());
        // It complains when its init is killed.
        command.stdin(Stdio::null()).stderr(Stdio::null());
        // SAFETY: prctl is async-signal-safe, and asks for nothing but an end with this thread.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let unshare = command.spawn().unwrap();
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let mut machine = Self { unshare, init: String::new(), added };
        machine.until("no init", |machine| {
            machine.init = fs::read_to_string(&children).unwrap_or_default().trim().to_owned();
            let exe = fs::read_link(format!("/proc/{}/exe", machine.init));
            exe.is_ok_and(|exe| exe.ends_with("systemd"))
        });
        machine.until("it does not boot", |machine| {
            let state = machine.run("systemctl is-system-running").0;
            ["running\n", "degraded\n"].contains(&state.as_str())
        });
        let (version, runs) = machine.run("mptm --version");
        if !runs {
            skip(&format!("the Debian is older than what this mptm was built on: {}", version.trim()));
            return None;
        }
        Some(machine)
    }

    /// What a shell command in the machine prints, and whether it worked.
    pub fn run(&self, script: &str) -> (String, bool) {
        let output = Command::new("nsenter")
            .args(["-t", &self.init, "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup"])
            .args(["/bin/sh", "-c", script])
            .stdin(Stdio::null())
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (text + &String::from_utf8_lossy(&output.stderr), output.status.success())
    }

    /// It must work.
    #[track_caller]
    pub fn must(&self, script: &str) -> String {
        let (text, worked) = self.run(script);
        assert!(worked, "{script}: {text}\n{}", self.journal());
        text
    }

    /// Waits, but not for ever.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) -> Duration {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(30) {
            if condition(self) {
                return start.elapsed();
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("{what}\n{}", self.journal());
    }

    /// Puts a file into the machine, by renaming it into place.
    pub fn write(&self, path: &str, text: &str) {
        let real = PathBuf::from(format!("/proc/{}/root{path}", self.init));
        let new = real.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, real).unwrap();
    }

    /// What a property of a unit is.
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.run(&format!("systemctl show -P {name} {unit}")).0.trim().to_owned()
    }

    pub fn journal(&self) -> String {
        self.run("journalctl --no-pager -o short-monotonic -u 'mptm*' | tail -n 60").0
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Everything in a PID namespace ends with its init.
        let _ = Command::new("kill").args(["-KILL", &self.init]).stderr(Stdio::null()).status();
        let _ = self.unshare.wait();
        let _ = fs::remove_dir_all(self.added.path());
    }
}
