package lab

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"gprovision/forge/tool"
)

// debianSuite is the release of the demo's system.
const debianSuite = "bookworm"

// debianPackages are what the demo's system consists of, beside what is essential: what a release must have (a kernel,
// systemd, networkd), what the boot artifact takes from it (e2fsprogs, mdadm, the EFI stub, GRUB's modules), and sshd.
var debianPackages = []string{
	"linux-image-amd64", "systemd", "systemd-sysv", "dbus", "udev", "kmod", "iproute2",
	"e2fsprogs", "mdadm", "systemd-boot-efi", "grub-pc-bin", "grub-common", "zstd",
	"openssh-server", "sudo", "passwd", "login", "ca-certificates",
}

// debianExcludes are files that dpkg leaves out: documentation, drivers of what neither a demo nor an appliance without a
// screen has, and the hook that would build an initramfs, since the boot artifact replaces it.
var debianExcludes = []string{
	"/etc/kernel/postinst.d/initramfs-tools",
	"/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/i18n/*",
	"/usr/lib/udev/hwdb.d/*", "/usr/lib/x86_64-linux-gnu/gconv/*", "/usr/share/perl/*/unicore/*", "/usr/share/perl/*/Unicode/*",
	"/usr/lib/x86_64-linux-gnu/perl/*/auto/Encode/*",
	modules + "sound/*", modules + "lib/test_*", modules + "arch/x86/kvm/*", modules + "net/bluetooth/*", modules + "net/mac80211/*",
	modules + "net/wireless/*", modules + "net/sctp/*", modules + "net/tipc/*", modules + "net/ceph/*", modules + "net/sunrpc/*",
	modules + "net/rxrpc/*", modules + "net/batman-adv/*", modules + "net/can/*",
	modules + "drivers/gpu/*", modules + "drivers/media/*", modules + "drivers/net/wireless/*", modules + "drivers/infiniband/*",
	modules + "drivers/staging/*", modules + "drivers/iio/*", modules + "drivers/isdn/*", modules + "drivers/bluetooth/*",
	modules + "drivers/input/*", modules + "drivers/comedi/*", modules + "drivers/mtd/*", modules + "drivers/target/*",
	modules + "drivers/hwmon/*", modules + "drivers/video/*", modules + "drivers/thunderbolt/*", modules + "drivers/usb/gadget/*",
	modules + "drivers/usb/serial/*", modules + "drivers/net/usb/*", modules + "drivers/net/can/*", modules + "drivers/net/wwan/*",
	modules + "drivers/net/ethernet/chelsio/*", modules + "drivers/net/ethernet/sfc/*", modules + "drivers/net/ethernet/netronome/*",
	modules + "drivers/net/ethernet/cavium/*", modules + "drivers/net/ethernet/qlogic/*", modules + "drivers/net/ethernet/mellanox/*",
	modules + "drivers/scsi/lpfc/*", modules + "drivers/scsi/qla2xxx/*", modules + "drivers/scsi/qla4xxx/*", modules + "drivers/scsi/bfa/*",
	modules + "drivers/block/drbd/*",
	modules + "fs/ocfs2/*", modules + "fs/gfs2/*", modules + "fs/ceph/*", modules + "fs/smb/*", modules + "fs/nfs/*", modules + "fs/nfsd/*",
	modules + "fs/afs/*", modules + "fs/f2fs/*", modules + "fs/ubifs/*", modules + "fs/jfs/*", modules + "fs/reiserfs/*", modules + "fs/dlm/*",
}

const modules = "/lib/modules/*/kernel/"

// debianFiles are written into the system before it is packed. Keys of one host must not be in an image that many get.
var debianFiles = []struct{ path, text string }{
	{"/etc/systemd/system/ssh-hostkey.service", `[Unit]
Description=OpenSSH host key of this unit
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
Before=ssh.service

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -q -N "" -t ed25519 -f /etc/ssh/ssh_host_ed25519_key
`},
	{"/etc/systemd/system/ssh.service.d/hostkey.conf", `[Unit]
Requires=ssh-hostkey.service
After=ssh-hostkey.service
`},
	{"/etc/ssh/sshd_config.d/10-admin.conf", `HostKey /etc/ssh/ssh_host_ed25519_key
AllowUsers admin
PermitRootLogin no
PasswordAuthentication yes
UseDNS no
`},
	{"/etc/systemd/network/80-dhcp.network", `[Match]
Name=en* eth*

[Network]
DHCP=yes
`},
	{"/etc/fstab", ""},
	{"/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"},
}

// debianCommands run inside the system before it is packed.
var debianCommands = []string{
	"groupadd -r wheel",
	"useradd -m -u 1001 -s /bin/bash -G sudo,wheel,systemd-journal admin",
	"passwd -q -l root",
	"systemctl -q enable systemd-networkd ssh serial-getty@ttyS0.service",
	"systemctl -q mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service dpkg-db-backup.timer systemd-networkd-wait-online.service",
}

// debianRemoves are removed before the system is packed: keys, and what would only be true of the building host.
var debianRemoves = []string{"/etc/ssh/ssh_host_*", "/boot/initrd*", "/initrd.img*", "/vmlinuz*", "/usr/lib/udev/hwdb.bin", "/etc/apt/apt.conf.d/99mmdebstrap", "/var/cache/apt/*.bin", "/var/lib/apt/lists/*"}

// DebianRoot returns the path of a tar archive with the root filesystem of a small Debian 12 server: generic kernel,
// systemd with networkd, sshd, the account admin (uid 1001, locked until a unit gets its password). It comes from the mirrors
// of the host's own apt configuration by mmdebstrap, and is kept in the cache. It needs root, and about a minute.
func DebianRoot(ctx context.Context, log *slog.Logger, cache *Cache) (string, error) {
	return debootstrap(ctx, log, cache, "debian-"+debianSuite+".tar", "tar", debianArguments())
}

// debootstrap returns what mmdebstrap makes with the arguments args in the given format, from the mirrors of the host's apt
// configuration. It is kept in the cache under the name.
func debootstrap(ctx context.Context, log *slog.Logger, cache *Cache, name, format string, args []string) (string, error) {
	sources, err := aptSources("/etc/apt")
	if err != nil {
		return "", err
	}
	options, err := aptOptions(ctx, log)
	if err != nil {
		return "", err
	}
	key := Key(append(append(slices.Clone(args), sources.list, sources.deb822), options...)...)
	return cache.Get(ctx, name, key, func(path string) error {
		dir, err := os.MkdirTemp("", "gprov-apt-")
		if err != nil {
			return fmt.Errorf("make debian root: %w", err)
		}
		defer os.RemoveAll(dir)
		all := []string{"--mode=root", "--format=" + format}
		for _, o := range options {
			all = append(all, "--aptopt="+o)
		}
		all = append(append(all, args...), debianSuite, path)
		for name, text := range map[string]string{"host.list": sources.list, "host.sources": sources.deb822} {
			if text == "" {
				continue
			}
			file := filepath.Join(dir, name)
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				return fmt.Errorf("make debian root: %w", err)
			}
			all = append(all, file)
		}
		if err := run(ctx, log, "mmdebstrap", "mmdebstrap", all...); err != nil {
			return fmt.Errorf("make debian root: %w", err)
		}
		return nil
	})
}

// debianArguments are mmdebstrap's, without what comes from the host.
func debianArguments() []string {
	args := []string{"--variant=apt", "--quiet", "--include=" + strings.Join(debianPackages, ",")}
	for _, e := range debianExcludes {
		args = append(args, "--dpkgopt=path-exclude="+e)
	}
	args = append(args, "--dpkgopt=path-include=/usr/share/doc/*/copyright")
	hook := func(command string) { args = append(args, "--customize-hook="+command) }
	for _, f := range debianFiles {
		hook(fmt.Sprintf(`mkdir -p "$1%s" && printf %%s %s > "$1%s"`, filepath.Dir(f.path), quote(f.text), f.path))
	}
	for _, c := range debianCommands {
		hook(`chroot "$1" ` + c)
	}
	for _, r := range debianRemoves {
		hook(`rm -rf "$1"` + r)
	}
	return args
}

// quote quotes a text for a POSIX shell, in which mmdebstrap runs its hooks.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// sources are apt's package sources that have the suite, in both formats.
type sources struct{ list, deb822 string }

// aptSources reads the host's apt configuration (sources.list(5)). Sources of other suites or vendors are left out. A host
// without one of our suite is an error.
func aptSources(dir string) (sources, error) {
	var s sources
	files, err := filepath.Glob(filepath.Join(dir, "sources.list.d", "*"))
	if err != nil {
		return s, fmt.Errorf("read apt sources: %w", err)
	}
	for _, f := range append([]string{filepath.Join(dir, "sources.list")}, files...) {
		ext := filepath.Ext(f)
		if ext != ".list" && ext != ".sources" {
			continue
		}
		b, err := os.ReadFile(f)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return s, fmt.Errorf("read apt sources: %w", err)
		}
		if ext == ".list" {
			s.list += listLines(string(b))
		} else {
			s.deb822 += deb822Stanzas(string(b))
		}
	}
	if s == (sources{}) {
		return s, fmt.Errorf("no source of Debian %s in the apt configuration %s", debianSuite, dir)
	}
	return s, nil
}

// listLines keeps the lines "deb [options] URI SUITE COMPONENT..." of our suite.
func listLines(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb ")
		if !ok {
			continue
		}
		rest = strings.TrimSpace(rest)
		if strings.HasPrefix(rest, "[") {
			_, rest, _ = strings.Cut(rest, "]")
		}
		if f := strings.Fields(rest); len(f) > 2 && ourSuite(f[1]) && slices.Contains(f[2:], "main") {
			out.WriteString(strings.TrimSpace(line) + "\n")
		}
	}
	return out.String()
}

// deb822Stanzas keeps the stanzas with a suite of ours.
func deb822Stanzas(text string) string {
	var out strings.Builder
	var stanza []string
	keep, enabled := false, true
	flush := func() {
		if keep && enabled {
			out.WriteString(strings.Join(stanza, "\n") + "\n\n")
		}
		stanza, keep, enabled = nil, false, true
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if strings.TrimSpace(line) == "" {
			flush()
			continue
		}
		if strings.HasPrefix(line, "#") {
			continue
		}
		stanza = append(stanza, line)
		name, value, _ := strings.Cut(line, ":")
		switch strings.ToLower(name) {
		case "suites":
			keep = slices.ContainsFunc(strings.Fields(value), ourSuite)
		case "enabled":
			enabled = strings.TrimSpace(value) != "no"
		}
	}
	flush()
	return out.String()
}

// ourSuite accepts bookworm and bookworm-updates, -security, -proposed-updates.
func ourSuite(s string) bool {
	s, _, _ = strings.Cut(s, "/")
	return s == debianSuite || strings.HasPrefix(s, debianSuite+"-") && !strings.Contains(s, "backports")
}

// aptOption are the settings of the host's apt that concern how packages are fetched.
var aptOption = regexp.MustCompile(`^Acquire::((https?|ftp)::(Proxy|Timeout|No-Cache)[^ ]*|(Check-Valid-Until|Check-Date|Retries|ForceIPv4|ForceIPv6)) "[^"]+";$`)

func aptOptions(ctx context.Context, log *slog.Logger) ([]string, error) {
	b, err := tool.Output(ctx, log, tool.Command{Name: "apt-config", Package: "apt", Args: []string{"dump"}})
	if err != nil {
		return nil, fmt.Errorf("read apt configuration: %w", err)
	}
	return fetchOptions(b), nil
}

func fetchOptions(dump []byte) []string {
	var out []string
	for sc := bufio.NewScanner(bytes.NewReader(dump)); sc.Scan(); {
		if aptOption.MatchString(sc.Text()) {
			out = append(out, strings.TrimSuffix(sc.Text(), ";"))
		}
	}
	slices.Sort(out)
	return out
}
