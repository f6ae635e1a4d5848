package sysroot

import (
	"errors"
	"fmt"
	"strings"

	"gprovision/model/layout"
)

// Mount is one line of /etc/fstab (fstab(5)).
type Mount struct {
	Source  string // such as "PARTUUID=..."
	Target  string // absolute path
	Type    string // filesystem type
	Options string
	Pass    int // order of fsck: 1 for the root, 2 for others, 0 for none
}

// EFIDir is the mount point of the main disk's ESP. Nothing mounts it automatically.
const EFIDir = "/boot/efi"

// RecoveryDir returns where the running system mounts the recovery volume with the given label.
func RecoveryDir(label string) string { return "/mnt/" + label }

// Mounts returns the fstab of a unit: the root, the recovery volume, and the ESP of the main disk if it has one. The
// recovery volume is mounted read-only, and nothing on it can be executed. If it is missing, the boot goes on. ssd
// adds discard.
func Mounts(main, recovery layout.Table, recoveryLabel string, ssd bool) ([]Mount, error) {
	p := main.Find(layout.Primary)
	if p == nil {
		return nil, errors.New("the main disk has no partition for the system")
	}
	r := recovery.Find(layout.Recovery)
	if r == nil {
		r = main.Find(layout.Recovery)
	}
	if r == nil {
		return nil, errors.New("there is no partition for the recovery volume")
	}
	opts := "errors=remount-ro"
	if ssd {
		opts += ",discard"
	}
	out := []Mount{
		{source(p), "/", "ext4", opts, 1},
		{source(r), RecoveryDir(recoveryLabel), "ext4", "ro,nofail,noexec,nosuid,nodev,x-systemd.device-timeout=90s", 0},
	}
	if e := main.Find(layout.ESP); e != nil {
		out = append(out, Mount{source(e), EFIDir, "vfat", "noauto,nofail,umask=0077", 0})
	}
	return out, nil
}

func source(p *layout.Partition) string {
	if p.UUID != "" {
		return "PARTUUID=" + p.UUID
	}
	return "UUID=" + p.FSUUID
}

// Fstab formats the lines of /etc/fstab.
func Fstab(mounts []Mount) ([]byte, error) {
	var b strings.Builder
	b.WriteString("# Written by the factory restore.\n")
	for _, m := range mounts {
		for name, v := range map[string]string{"source": m.Source, "target": m.Target, "type": m.Type, "options": m.Options} {
			if v == "" || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				return nil, fmt.Errorf("fstab: %s of %q is empty or has a control character", name, m.Target)
			}
		}
		if !strings.HasPrefix(m.Target, "/") {
			return nil, fmt.Errorf("fstab: %q is not an absolute path", m.Target)
		}
		if m.Pass < 0 || m.Pass > 9 {
			return nil, fmt.Errorf("fstab: pass %d of %q", m.Pass, m.Target)
		}
		fmt.Fprintf(&b, "%s %s %s %s 0 %d\n", octal(m.Source), octal(m.Target), octal(m.Type), octal(m.Options), m.Pass)
	}
	return []byte(b.String()), nil
}

// octal escapes what would end a field of fstab(5).
func octal(s string) string {
	return strings.NewReplacer(`\`, `\134`, " ", `\040`, "#", `\043`).Replace(s)
}

// SetMounts replaces /etc/fstab and makes missing mount points. Their mode is 0700, so that others see nothing in
// them even while nothing is mounted.
func (s *System) SetMounts(mounts []Mount) error {
	b, err := Fstab(mounts)
	if err != nil {
		return err
	}
	for _, m := range mounts {
		dir := strings.Trim(m.Target, "/")
		if dir == "" {
			continue
		}
		if s.exists(dir) {
			continue
		}
		d, err := s.makeDir(dir, 0o700)
		if err != nil {
			return err
		}
		if err := d.Close(); err != nil {
			return err
		}
	}
	return s.write("etc/fstab", b, 0o644)
}
