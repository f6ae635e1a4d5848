package lab

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"gprovision/forge/tool"
)

// BuildTiny compiles the tiny system's program (lab/tiny) to the path out. It needs Go and the sources of this module: the
// working directory is inside it.
func BuildTiny(ctx context.Context, log *slog.Logger, out string) error {
	return goBuild(ctx, log, out, "gprovision/lab/tiny")
}

// goBuild compiles a program of this module, statically.
func goBuild(ctx context.Context, log *slog.Logger, out, pkg string) error {
	c := tool.Command{Name: "go", Package: "golang-go", Args: []string{"build", "-trimpath", "-ldflags", "-s -w", "-o", out, pkg}, Env: []string{"CGO_ENABLED=0"}}
	if err := tool.Run(ctx, log, c); err != nil {
		return fmt.Errorf("build %s: %w", pkg, err)
	}
	return nil
}

// tinyShadow locks every account; the restore sets admin's password.
const tinyShadow = "root:*:19000:0:99999:7:::\nadmin:!:19000:0:99999:7:::\n"

// TinyModules are the modules of Debian's kernel that a tiny system loads itself, in this order: init leaves network ports to the system.
func TinyModules() []string { return []string{"failover", "net_failover", "virtio_net"} }

// Module is a kernel module.
type Module struct {
	Name string
	Data []byte
}

// ReadModules reads kernel modules out of a root filesystem archive, in the order of names. It is an error if one is missing.
func ReadModules(archive string, names ...string) ([]Module, error) {
	f, err := os.Open(archive)
	if err != nil {
		return nil, fmt.Errorf("read modules: %w", err)
	}
	defer f.Close()
	out := make([]Module, len(names))
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read modules: %w", err)
		}
		if i := slices.Index(names, strings.TrimSuffix(path.Base(h.Name), ".ko")); i >= 0 && strings.HasSuffix(h.Name, ".ko") {
			if out[i].Data, err = io.ReadAll(r); err != nil {
				return nil, fmt.Errorf("read modules: %w", err)
			}
			out[i].Name = names[i]
		}
	}
	for i, m := range out {
		if m.Name == "" {
			return nil, fmt.Errorf("read modules: %s has no %s.ko", archive, names[i])
		}
	}
	return out, nil
}

// TinyRoot writes a root filesystem as a tar archive that keeps every promise of a release and holds nothing else: its
// systemd is the tiny program, which loads modules in their order. version tells releases apart: the running system reports it. The programs
// others go to /usr/sbin.
func TinyRoot(w io.Writer, program, version string, modules []Module, others ...string) error {
	systemd, err := os.ReadFile(program)
	if err != nil {
		return fmt.Errorf("make tiny root: %w", err)
	}
	t := tinyTar{w: tar.NewWriter(w)}
	for _, d := range []string{
		"boot", "dev", "etc", "etc/systemd", "etc/systemd/network", "home", "home/admin", "mnt", "modules", "proc", "root", "run", "sys", "tmp",
		"usr", "usr/bin", "usr/sbin", "usr/lib", "usr/lib/systemd", "usr/lib/systemd/system", "var", "var/lib", "var/log",
	} {
		t.add(tar.Header{Typeflag: tar.TypeDir, Name: d + "/", Mode: 0o755}, nil)
	}
	for _, l := range [][2]string{{"bin", "usr/bin"}, {"sbin", "usr/sbin"}, {"lib", "usr/lib"}, {"usr/sbin/init", "../lib/systemd/systemd"},
		{"usr/lib/systemd/systemd-networkd", "systemd"}, {"usr/sbin/chpasswd", "../lib/systemd/systemd"}, {"usr/bin/sh", "../lib/systemd/systemd"}} {
		t.add(tar.Header{Typeflag: tar.TypeSymlink, Name: l[0], Linkname: l[1], Mode: 0o777}, nil)
	}
	for _, f := range []struct {
		name, text string
		mode       int64
	}{
		{"etc/passwd", "root:x:0:0:root:/root:/bin/sh\nadmin:x:1001:1001:admin:/home/admin:/bin/sh\n", 0o644},
		{"etc/shadow", tinyShadow, 0o640},
		{"etc/group", "root:x:0:\nsudo:x:27:admin\nwheel:x:998:admin\nsystemd-journal:x:999:admin\nadmin:x:1001:\n", 0o644},
		{"etc/gshadow", "root:*::\nsudo:*::admin\nwheel:!::admin\nsystemd-journal:!::admin\nadmin:!::\n", 0o640},
		{"etc/hostname", "tiny\n", 0o644},
		{"etc/hosts", "127.0.0.1 localhost\n", 0o644},
		{"etc/fstab", "", 0o644},
		{"etc/machine-id", "", 0o444},
		{"etc/os-release", "ID=tiny\nNAME=\"tiny\"\nVERSION_ID=\"" + version + "\"\n", 0o644},
		{"etc/tiny-release", version + "\n", 0o644},
		{"etc/systemd/network/80-dhcp.network", "[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\n", 0o644},
		{"usr/lib/systemd/system/systemd-networkd.service", "[Service]\nExecStart=/usr/lib/systemd/systemd-networkd\n", 0o644},
		{"usr/lib/systemd/systemd", string(systemd), 0o755},
	} {
		t.add(tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: f.mode}, []byte(f.text))
	}
	for i, m := range modules {
		t.add(tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("modules/%02d-%s.ko", i, m.Name), Mode: 0o644}, m.Data)
	}
	for _, name := range others {
		b, err := os.ReadFile(name)
		if err != nil {
			return fmt.Errorf("make tiny root: %w", err)
		}
		t.add(tar.Header{Typeflag: tar.TypeReg, Name: "usr/sbin/" + path.Base(name), Mode: 0o755}, b)
	}
	t.add(tar.Header{Typeflag: tar.TypeDir, Name: "etc/systemd/system/", Mode: 0o755}, nil)
	t.add(tar.Header{Typeflag: tar.TypeDir, Name: "etc/systemd/system/multi-user.target.wants/", Mode: 0o755}, nil)
	t.add(tar.Header{Typeflag: tar.TypeSymlink, Name: "etc/systemd/system/multi-user.target.wants/systemd-networkd.service",
		Linkname: "/usr/lib/systemd/system/systemd-networkd.service", Mode: 0o777}, nil)
	if t.err == nil {
		t.err = t.w.Close()
	}
	if t.err != nil {
		return fmt.Errorf("make tiny root: %w", t.err)
	}
	return nil
}

type tinyTar struct {
	w   *tar.Writer
	err error
}

func (t *tinyTar) add(h tar.Header, content []byte) {
	if t.err != nil {
		return
	}
	h.ModTime = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	h.Size = int64(len(content))
	h.Uname, h.Gname = "root", "root"
	if path.Clean(h.Name) == "home/admin" {
		h.Uid, h.Gid, h.Uname, h.Gname = 1001, 1001, "admin", "admin"
	}
	if t.err = t.w.WriteHeader(&h); t.err == nil {
		_, t.err = t.w.Write(content)
	}
}
