package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"gprovision/cli/unitcmd"
	"gprovision/forge/image"
	"gprovision/hw/lcd/simulator"
	"gprovision/unit/splash"
)

// tools returns the files that gprov-unit install puts into a system. Links, by which it enables the units, cannot be added to an
// image: a drop-in does it.
func (d *demo) tools() ([]image.File, error) {
	dir := filepath.Join(d.dir, "tools")
	if err := os.MkdirAll(filepath.Join(dir, "usr/lib/systemd/system/multi-user.target.d"), 0o755); err != nil {
		return nil, err
	}
	c := &unitcmd.Context{Context: d, Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: d.Stderr}
	if code := unitcmd.Run(c, []string{"install", "--root", dir, "--program", d.Unit, "--disable"}, ""); code != 0 {
		return nil, errors.New("gprov-unit install failed")
	}
	units, err := filepath.Glob(filepath.Join(dir, "usr/lib/systemd/system/gprov-*"))
	if err != nil {
		return nil, err
	}
	wants := "[Unit]\n"
	for _, u := range units {
		d.units = append(d.units, filepath.Base(u))
		wants += "Wants=" + filepath.Base(u) + "\n"
	}
	if err := os.WriteFile(filepath.Join(dir, "usr/lib/systemd/system/multi-user.target.d/gprov.conf"), []byte(wants), 0o644); err != nil {
		return nil, err
	}
	var out []image.File
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			var rel string
			rel, err = filepath.Rel(dir, path)
			out = append(out, image.File{Local: path, Dest: rel})
		}
		return err
	})
	return out, err
}

// judge has the tools of the running Debian say what they think of it, and gprov-unit what it knows.
func (d *demo) judge() error {
	ctx, cancel := context.WithTimeoutCause(d, demoPatience, fmt.Errorf("it is not done within %v", demoPatience))
	defer cancel()
	defer d.show.stage("systemd's tools and gprov-unit look at it", "unit")()
	units := strings.Join(d.units, " ")
	const port, files = "$(ls /sys/class/net | grep -v lo | head -n 1)", "/etc/systemd/network"
	for _, c := range []struct {
		what, command string
		sudo          bool
		want          string // the whole of what it prints, as a regular expression
	}{
		{"failed units", "systemctl --failed --no-legend --plain", false, ""},
		{"units of gprovision", "systemd-analyze verify --man=no --recursive-errors=no " + units, false, ""},
		{"network", "/lib/systemd/systemd-networkd-wait-online --any --timeout=120 && networkctl list --no-legend --no-pager", false,
			`(?s).*\bether\s+routable\s+configured\b.*`},
		{"machine-id", "systemd-id128 machine-id && cat /etc/machine-id", false, `([0-9a-f]{32})\n[0-9a-f]{32}`},
		{"host name", "hostname && getent hosts $(hostname)", false, `(?s)(\S+)\n127\.0\.0\.1 .*`},
		{"time zone", "date +%Z", false, "UTC"},
		{"fstab", "findmnt --verify --fstab", false, `(?s).*\b0 (parse )?errors.*|.*no errors or warnings.*`},
		{"recovery volume", "findmnt --noheadings --output OPTIONS /mnt/RECOVERY", false, `ro,.*`},
		{"recovery volume, for others", "ls /mnt/RECOVERY 2>&1 || true", false, ".*Permission denied"},
		{"boot-ok", "systemctl is-active gprov-boot-ok.service gprov-save-network.path", false, "active\nactive"},
		{"save-network", "gprov-unit save-network", true, "The network files are those of the image.*"},
		{"support-bundle", "gprov-unit support-bundle --out - | gzip --test && echo whole", true, "whole"},
		// The image has network files of its own. With the defaults of the platform in their place networkd and udev judge those, and
		// they count as the unit's own.
		{"default network files", "mv " + files + "/80-dhcp.network /run && cp " + files + "-defaults/* " + files + " && networkctl reload" +
			" && /lib/systemd/systemd-networkd-wait-online --any --timeout=120 && networkctl status --no-pager --lines=0 " + port, true,
			`(?s).*Network File: /etc/systemd/network/10-[0-9a-f]{12}\.network\n.*State: routable \(configured\).*`},
		{"default link files", "udevadm test-builtin net_setup_link /sys/class/net/" + port + " 2>&1", true, `(?s).*/etc/systemd/network/10-[0-9a-f]{12}\.link.*`},
		{"complaints of networkd", "journalctl --boot --unit systemd-networkd --priority warning --quiet --no-pager --output cat --grep 'network/10-'; true", true, ""},
		{"save-network by itself", "until test -e /mnt/RECOVERY/log/netd.tar; do sleep 1; done; gprov-unit save-network", true, "The network configuration is saved already."},
		{"image's network files", "rm " + files + "/10-* && mv /run/80-dhcp.network " + files + " && networkctl reload && until test ! -e /mnt/RECOVERY/log/netd.tar; do sleep 1; done", true, ""},
	} {
		run := d.session.Run
		if c.sudo {
			run = func(ctx context.Context, command string) (string, error) {
				return d.session.Sudo(ctx, d.secret, command)
			}
		}
		out, err := run(ctx, c.command)
		if err != nil {
			return fmt.Errorf("%s: %w", c.what, err)
		}
		if !regexp.MustCompile("^(?:" + c.want + ")$").MatchString(out) {
			return fmt.Errorf("%s: %s printed %q", c.what, c.command, out)
		}
	}
	if s := d.unit.Display(); s != nil {
		// It is the system's own now: as at power-on, but for the last text.
		if now, new := s.Screen(), simulator.New(s.Screen().Model).Screen(); !now.Contains(splash.Started) || now.PressMask != new.PressMask || now.RelMask != new.RelMask || now.Backlight != new.Backlight {
			return fmt.Errorf("the display was not handed over by boot-ok: it shows %q, %+v", now.Lines(), now)
		}
	}
	return d.knows(ctx)
}

// knows checks what gprov-unit and the server know of the running system.
func (d *demo) knows(ctx context.Context) error {
	out, err := d.session.Sudo(ctx, d.secret, "gprov-unit status --json")
	if err != nil {
		return err
	}
	var st unitcmd.Status
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		return fmt.Errorf("gprov-unit status: %w", err)
	}
	switch r := st.Recovery; {
	case st.Serial != demoSerial || st.Mark == nil || r == nil:
		return fmt.Errorf("gprov-unit status: the unit is not complete: %s", out)
	case !r.ReadOnly || r.Counts.BootAttempts != 0 || r.Counts.LastGood.IsZero() || r.Request != nil || len(r.Problems) > 0:
		return fmt.Errorf("gprov-unit status: this boot is not good: %s", out)
	}
	u, err := d.server.Unit(ctx, demoSerial)
	if err != nil {
		return err
	}
	if u.Unit.Job != "running" || u.Unit.Phase != "succeeded" {
		return fmt.Errorf("the server believes that the unit is at %s %s", u.Unit.Job, u.Unit.Phase)
	}
	d.show.say("nothing failed, the boot is good, and the server knows that the unit runs")
	return nil
}
