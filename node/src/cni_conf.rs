//! The CNI configuration file: its presence tells the runtime that this node has a network, so it is written only when the
//! node can serve. It stays when the daemon stops: pods keep running, and the shim says "try again later" meanwhile.
//!
//! Must not: touch other files of the folder.

use std::io::{self, Write};
use std::path::Path;

use ovenbird_api::path;
use ovenbird_cni_server::Version;
use serde_json::json;

/// Versions that the file offers. A runtime that knows `cniVersions` (CNI 1.1.0) takes the newest that both speak; an older one,
/// such as containerd 1.6, reads `cniVersion` alone and must find one there that it knows.
const OFFERED: [Version; 2] = [Version::V1_0_0, Version::V1_1_0];

/// Text of the file. The socket is named only when it is not the shim's default.
pub fn text(socket: &Path) -> String {
    let mut plugin = json!({"type": path::CNI_PLUGIN});
    if socket != Path::new(path::CNI_SOCKET) {
        plugin["socket"] = socket.to_string_lossy().into();
    }
    let list = json!({
        "cniVersion": OFFERED[0].as_str(),
        "cniVersions": OFFERED.map(Version::as_str),
        "name": path::CNI_NETWORK,
        "plugins": [plugin],
    });
    format!("{list:#}\n")
}

/// Writes the file at once and whole, unless it already says the same. True when it was written.
///
/// # Errors
/// Those of the file system.
pub fn write(file: &Path, text: &str) -> io::Result<bool> {
    if std::fs::read_to_string(file).is_ok_and(|old| old == text) {
        return Ok(false);
    }
    let folder = file.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder)?;
    // Runtimes read only names that end in .conf, .conflist or .json.
    let draft = file.with_extension("new");
    let mut out = std::fs::File::create(&draft)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    std::fs::rename(&draft, file)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_written_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("net.d/10-ovenbird.conflist");
        let text = text(Path::new("/tmp/cni.sock"));
        assert!(write(&file, &text).unwrap());
        assert!(!write(&file, &text).unwrap());
        let read: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        assert_eq!((&read["cniVersion"], &read["cniVersions"]), (&json!("1.0.0"), &json!(["1.0.0", "1.1.0"])));
        assert_eq!(read["plugins"][0], json!({"type": "ovenbird-cni", "socket": "/tmp/cni.sock"}));
        assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn the_default_socket_is_not_named() {
        assert!(!text(Path::new(path::CNI_SOCKET)).contains("socket"));
    }
}
