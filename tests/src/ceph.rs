//! A throw-away Ceph cluster of one node, in memory, with its S3 gateway: the other store users run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{Process, check, wait_for};
use crate::s3::{Credentials, S3};
use crate::scratch::Scratch;
use crate::{part, port};

#[derive(Debug)]
pub struct CephRgw {
    // In the order in which they may end: the gateway first.
    _daemons: Vec<Process>,
    endpoint: String,
    _scratch: Scratch,
}

impl CephRgw {
    /// Monitor, manager, one OSD in memory, gateway, one user. Some fifteen seconds.
    pub fn start() -> Result<Self> {
        let scratch = Scratch::new()?;
        let cluster = Cluster { folder: scratch.path().to_owned(), port: port::free_block()? };
        let mut daemons = Vec::new();
        cluster.prepare()?;
        daemons.push(
            cluster.daemon("ceph-mon", &["-f", "-i", "a", "--public-addr", &cluster.monitor()])?,
        );
        cluster.ceph(&["-s"]).context("the monitor does not answer")?;
        daemons.push(cluster.daemon("ceph-mgr", &["-f", "-i", "x"])?);
        cluster.make_osd()?;
        daemons.push(cluster.daemon("ceph-osd", &["-f", "-i", "0"])?);
        wait_for("the OSD to come up", || {
            let stat = cluster.ceph(&["osd", "stat"]).ok()?;
            stat.contains("1 up").then_some(())
        })?;
        let mut gateway = cluster.daemon("radosgw", &["-f", "-n", "client.rgw"])?;
        gateway
            .wait_ready(|_| std::net::TcpStream::connect(("127.0.0.1", cluster.port)).is_ok())?;
        daemons.push(gateway);
        daemons.reverse();
        cluster.make_user()?;
        let endpoint = format!("http://127.0.0.1:{}", cluster.port);
        Ok(Self { _daemons: daemons, endpoint, _scratch: scratch })
    }

    pub fn client(&self) -> Result<S3> {
        S3::new(&self.endpoint, Credentials::TEST)
    }
}

struct Cluster {
    folder: PathBuf,
    /// The gateway's; the monitor has the next two, daemons those from the twentieth on.
    port: u16,
}

impl Cluster {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn conf(&self) -> PathBuf {
        self.path("ceph.conf")
    }

    fn monitor(&self) -> String {
        format!("127.0.0.1:{}", self.port + 1)
    }

    fn command(&self, program: &str) -> Result<Command> {
        let mut command = Command::new(part::program(program)?);
        command.env("CEPH_CONF", self.conf());
        Ok(command)
    }

    fn daemon(&self, program: &str, args: &[&str]) -> Result<Process> {
        Process::start(program, self.command(program)?.args(args), &self.folder)
    }

    fn ceph(&self, args: &[&str]) -> Result<String> {
        let mut command = self.command("ceph")?;
        command.arg("--conf").arg(self.conf()).arg("--keyring").arg(self.path("keyring"));
        check(command.args(["--connect-timeout", "60"]).args(args))
    }

    /// Folders, configuration, keys and the monitor's store.
    fn prepare(&self) -> Result<()> {
        for name in ["mon", "mgr", "osd", "rgw", "run", "log"] {
            fs::create_dir(self.path(name))?;
        }
        let fsid = uuid()?;
        fs::write(self.conf(), configuration(&self.folder, self.port, &fsid))?;
        let keyring = self.path("keyring");
        let keys: [(&str, &[&str]); 5] = [
            ("mon.", &["mon", "allow *"]),
            ("client.admin", &["mon", "allow *", "osd", "allow *", "mgr", "allow *"]),
            ("client.rgw", &["mon", "allow *", "osd", "allow *", "mgr", "allow *"]),
            ("mgr.x", &["mon", "allow profile mgr", "osd", "allow *"]),
            ("osd.0", &["mon", "allow profile osd", "mgr", "allow profile osd"]),
        ];
        for (n, (name, caps)) in keys.iter().enumerate() {
            let mut command = self.command("ceph-authtool")?;
            if n == 0 {
                command.arg("--create-keyring");
            }
            command.arg(&keyring).args(["--gen-key", "-n", name]);
            for cap in caps.chunks_exact(2) {
                command.arg("--cap").args(cap);
            }
            check(&mut command)?;
        }
        let monmap = self.path("monmap");
        let addresses = format!("[v2:{},v1:127.0.0.1:{}]", self.monitor(), self.port + 2);
        let mut command = self.command("monmaptool")?;
        command.args(["--create", "--clobber", "--fsid", &fsid, "--addv", "a", &addresses]);
        check(command.arg(&monmap))?;
        let mut command = self.command("ceph-mon")?;
        command.args(["--mkfs", "-i", "a", "--monmap"]).arg(&monmap);
        check(command.arg("--keyring").arg(&keyring))?;
        Ok(())
    }

    fn make_osd(&self) -> Result<()> {
        let id = uuid()?;
        self.ceph(&["osd", "new", &id, "0", "-n", "client.admin"])?;
        let mut command = self.command("ceph-osd")?;
        command.args(["-i", "0", "--mkfs", "--osd-uuid", &id, "--keyring"]);
        check(command.arg(self.path("keyring")))?;
        self.ceph(&["osd", "crush", "add-bucket", "default", "root"])?;
        self.ceph(&["osd", "crush", "add", "osd.0", "1.0", "root=default", "host=h"])?;
        Ok(())
    }

    fn make_user(&self) -> Result<()> {
        let Credentials { key, secret } = Credentials::TEST;
        let mut command = self.command("radosgw-admin")?;
        command.args(["-n", "client.rgw", "user", "create", "--uid=test", "--display-name=test"]);
        check(command.args([format!("--access-key={key}"), format!("--secret-key={secret}")]))?;
        Ok(())
    }
}

fn uuid() -> Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/uuid").context("no random uuid")?;
    Ok(text.trim().to_owned())
}

fn configuration(folder: &Path, port: u16, fsid: &str) -> String {
    let d = folder.display();
    let (v2, v1, first, last) = (port + 1, port + 2, port + 20, port + 90);
    format!(
        "[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{v2}/0,v1:127.0.0.1:{v1}/0]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {d}/keyring
admin socket = {d}/run/$name.asok
log file = {d}/log/$name.log
mon cluster log file = {d}/log/cluster.log
run dir = {d}/run
pid file = {d}/run/$name.pid
crash dir = {d}/log
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon allow pool delete = true
mon max pg per osd = 1000
mon warn on pool no redundancy = false
mon data avail crit = 1
mon data avail warn = 2
setuser match path =
ms bind port min = {first}
ms bind port max = {last}
[mon]
mon data = {d}/mon
[mgr]
mgr data = {d}/mgr
mgr initial modules =
mgr disabled modules = dashboard restful prometheus zabbix influx telemetry k8sevents rook diskprediction_local
[osd]
osd data = {d}/osd
osd objectstore = memstore
memstore device bytes = 2G
osd scrub begin hour = 0
osd max scrubs = 0
osd op num shards = 2
osd class load list = *
osd class default list = *
[client.rgw]
rgw data = {d}/rgw
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw run sync thread = false
rgw enable usage log = false
rgw gc obj min wait = 5
rgw crypt require ssl = false
rgw bucket default quota max objects = -1
rgw thread pool size = 64
rgw dynamic resharding = false
rgw override bucket index max shards = 1
"
    )
}
