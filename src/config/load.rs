//! Reading the file and its drop-ins.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnostic::{Diagnostic, Diagnostics, Report, Span};
use super::model::Config;
use super::trust;

/// The name of standard input, as an argument and in messages.
const STDIN: &str = "-";

/// No configuration is larger; `/dev/zero` is.
const LARGEST: u64 = 1 << 29;

/// One text of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// As it was opened; `-` is standard input.
    pub name: Arc<str>,
    /// All of it.
    pub text: Arc<str>,
}

impl Source {
    /// A text under a name.
    pub fn new(name: impl Into<Arc<str>>, text: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// Without the byte order mark that some editors write.
    pub(super) fn body(&self) -> &str {
        self.text.strip_prefix('\u{feff}').unwrap_or(&self.text)
    }
}

/// A configuration and where it came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What it means.
    pub config: Config,
    /// The file, then its drop-ins in the order of their names.
    pub sources: Vec<Source>,
}

/// Reads the file at `path` (`-`: standard input) and its drop-ins: for /etc/mptm.toml, /etc/mptm.d/*.toml.
///
/// # Errors
/// All that cannot be read or is wrong.
pub fn load(path: &Path) -> Result<Loaded, Diagnostics> {
    let (sources, errors) = read(path);
    let config = super::parse_after(&sources, errors)?;
    Ok(Loaded { config, sources })
}

/// Whether the file at `path` or its drop-ins are no longer what was read. Standard input never changes.
pub fn has_changed(path: &Path, sources: &[Source]) -> bool {
    path != Path::new(STDIN) && read(path).0 != sources
}

/// Refuses a file that others could have written, or could exchange: it, its drop-ins, and the directories and links that
/// lead to them must be root's, the caller's, or of the user of sudo, and nobody else may write to them. Whoever can give
/// mptm a standard input could give it any.
///
/// # Errors
/// What others may write.
pub fn require_trusted(path: &Path) -> Result<(), Diagnostics> {
    if path == Path::new(STDIN) {
        return Ok(());
    }
    let flaws = trust::flaws(path, drop_ins(&path.with_extension("d")));
    let flaws = Report::new(flaws).into_diagnostics(&[]);
    if flaws.is_empty() { Ok(()) } else { Err(flaws) }
}

/// The texts, and what could not be read of them.
fn read(path: &Path) -> (Vec<Source>, Vec<Diagnostic>) {
    let mut sources = Vec::new();
    let mut errors = Vec::new();
    let mut take = |name: String, bytes: io::Result<Vec<u8>>, hint| match bytes {
        Ok(bytes) => {
            let (source, error) = decode(name, bytes, sources.len());
            sources.push(source);
            errors.extend(error);
        }
        Err(error) => errors.push(unreadable(&name, &error, hint)),
    };
    if path == Path::new(STDIN) {
        take(STDIN.to_owned(), read_all(io::stdin().lock()), "");
    } else {
        take(path.display().to_string(), read_file(path), "name the file with -c FILE or MPTM_CONFIG");
        let directory = path.with_extension("d");
        match drop_ins(&directory) {
            Ok(paths) => {
                for path in paths {
                    take(
                        path.display().to_string(),
                        read_file(&path),
                        "the link leads nowhere: mend or remove it",
                    );
                }
            }
            Err(error) => errors.push(unreadable(&directory.display().to_string(), &error, "")),
        }
    }
    (sources, errors)
}

/// The drop-ins in `directory`, by name. Dangling links are among them: reading them says what is wrong.
fn drop_ins(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        entries => entries?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let toml = path.extension().is_some_and(|extension| extension == "toml");
        if toml && !hidden && fs::metadata(&path).map_or(true, |metadata| metadata.is_file()) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    read_all(File::open(path)?)
}

fn read_all(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {LARGEST} bytes")));
    }
    Ok(bytes)
}

/// `absent` is what to do if it is not there.
fn unreadable(name: &str, error: &io::Error, absent: &str) -> Diagnostic {
    let title = format!("cannot read {name}: {error}");
    match error.kind() {
        io::ErrorKind::NotFound => Diagnostic::new(title).help(absent),
        io::ErrorKind::IsADirectory => {
            Diagnostic::new(title).help("name a file; drop-ins for FILE.toml are read from FILE.d")
        }
        io::ErrorKind::PermissionDenied => {
            Diagnostic::new(title).help("run mptm as a user that may read it, such as root")
        }
        _ => Diagnostic::new(title),
    }
}

/// What is not UTF-8 is reported where it stands, and the text is read as empty.
fn decode(name: String, bytes: Vec<u8>, file: usize) -> (Source, Option<Diagnostic>) {
    match String::from_utf8(bytes) {
        Ok(text) => (Source::new(name, text), None),
        Err(error) => {
            let offset = error.utf8_error().valid_up_to();
            let byte = error.as_bytes()[offset];
            // All before the first wrong byte is as it was, so that its offset holds in the mended text, too.
            let text = String::from_utf8_lossy(error.as_bytes());
            let mark = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
            let start = offset - mark;
            let span = Span { file, start, end: start + char::REPLACEMENT_CHARACTER.len_utf8() };
            let label = format!("byte 0x{byte:02x} at offset {offset}: save the file as UTF-8");
            let error = Diagnostic::at(span, "the file is not UTF-8 text", label);
            (Source::new(name, text), Some(error))
        }
    }
}
