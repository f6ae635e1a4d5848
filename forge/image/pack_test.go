package image

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gprovision/hw/filesystem"
)

func shell(t *testing.T, script string, args ...string) {
	t.Helper()
	if out, err := exec.Command("bash", append([]string{"-c", "set -e\n" + script, "-"}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestSameTreeSameBytes packs copies of one tree, with holes and without, that lie on several filesystems.
func TestSameTreeSameBytes(t *testing.T) {
	needs(t, true, "xz", "mke2fs", "mount", "losetup", "cp", "setfattr", "setfacl")
	src := t.TempDir()
	shell(t, `cd "$1"; mkdir -p var/log dev a/b; echo x > a/x; ln a/x a/y; ln -s x a/z; mkfifo dev/f; mknod dev/n c 1 3
truncate -s 64M var/log/lastlog; echo user | dd of=var/log/lastlog bs=1 seek=9000000 conv=notrunc status=none
truncate -s 1M a/zeros; truncate -s 100K a/small-zeros; head -c 300000 /dev/urandom > a/dense; truncate -s 700001 a/dense
for i in $(seq 0 60); do echo part$i | dd of=a/parts bs=1 seek=$((i*70000)) conv=notrunc status=none; done
setfacl -m u:7:rw,g:4:r a/x; setfacl -d -m u:7:rwx a/b; setfattr -n user.note -v text a/dense; setfattr -n trusted.t -v x a/b
chown 5:6 a/dense; chmod 4755 a/dense; chmod 1777 a/b; find . -exec touch -h -d '2026-01-02 03:04:05.123456789' {} +`, src)
	work := t.TempDir()
	shell(t, `cd "$1"; mkdir ext4 tmpfs; truncate -s 300M disk; mke2fs -q -t ext4 -F disk; mount -o loop disk ext4; mount -t tmpfs none tmpfs
touch foreign; mkdir -p ext4/sparse tmpfs/sparse ext4/dense tmpfs/dense`, work)
	t.Cleanup(func() { shell(t, `umount "$1/ext4" "$1/tmpfs"`, work) })
	want := ""
	for _, fs := range []string{"ext4", "tmpfs"} {
		for _, how := range []string{"sparse", "dense"} {
			root := filepath.Join(work, fs, how, "root")
			when := map[string]string{"sparse": "always", "dense": "never"}[how]
			shell(t, `cp -a --sparse=$3 "$1" "$2"; if [ $3 = always ]; then test $(stat -c %b "$2/var/log/lastlog") -lt 1000; else test $(stat -c %b "$2/var/log/lastlog") -gt 100000; fi`, src, root, when)
			res, err := Build(context.Background(), nil, Options{RootFS: root, Out: filepath.Join(t.TempDir(), "out"), Name: name(t, 1), Time: buildTime, Preset: "0", AllowIncomplete: true})
			if err != nil {
				t.Fatalf("%s on %s: %v", how, fs, err)
			}
			if want == "" {
				want = res.SHA256
			}
			if res.SHA256 != want {
				t.Errorf("%s on %s: other bytes", how, fs)
			}
			if res.Decoded > 4<<20 {
				t.Errorf("%s on %s: %d bytes inside: holes are zeros", how, fs, res.Decoded)
			}
		}
	}
}

// TestPackAgainstGNUTar: what is packed comes out as what GNU tar unpacks, and as what our own unpacker makes of it.
func TestPackAgainstGNUTar(t *testing.T) {
	needs(t, true, "tar", "setfattr", "setfacl", "setcap", "getfattr", "diff")
	src := t.TempDir()
	n := strings.Repeat("n", 180)
	shell(t, `cd "$1"; mkdir -p dev a/b "$2"; head -c 1000 /dev/urandom > a/x; ln a/x a/y; ln -s x a/z; mkfifo dev/f; mknod dev/n c 1 3; mknod dev/b b 8 300
truncate -s 5M a/sparse; echo mid | dd of=a/sparse bs=1 seek=2000000 conv=notrunc status=none; truncate -s 3M a/empty
for i in $(seq 0 2 40); do echo x | dd of=a/many bs=1 seek=$((i*65536)) conv=notrunc status=none; done
cp /bin/true a/cap; setcap cap_net_raw=ep a/cap; setfattr -n user.x -v y a/x; setfattr -n user.a=b% -v z a/x; setfacl -m u:7:rw a/x; setfacl -d -m g:9:rx a/b
echo l > "$2/$2"; ln -s "$2/$2/$2" long; touch $'new\nline' ü; chown 1000:2000 a/x; chown -h 1:2 a/z; chmod 2755 a/b
python3 -c 'import socket;socket.socket(socket.AF_UNIX).bind("dev/socket")'; touch -h -d '1969-12-31' a/z; touch -d '2026-01-02 03:04:05.123456789' a/x`, src, n)
	var out bytes.Buffer
	r := packDirectory(context.Background(), src, time.Time{})
	if _, err := io.Copy(&out, r); err != nil {
		t.Fatal(err)
	}
	r.Close()
	file := filepath.Join(t.TempDir(), "x.tar")
	if err := os.WriteFile(file, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	theirs, ours := t.TempDir(), t.TempDir()
	shell(t, `tar --numeric-owner --xattrs '--xattrs-include=*' --acls -xpf "$1" -C "$2"; rm "$3/dev/socket"; touch -d @1 "$3/dev"`, file, theirs, src)
	if _, err := filesystem.Unpack(context.Background(), ours, bytes.NewReader(out.Bytes()), filesystem.UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{theirs, ours} {
		shell(t, `touch -d @1 "$2/dev"
list() { cd "$1"; find . -printf '%p %y %m %U:%G %n %T@ %l\n' | grep -v '^\. ' | sort; find . | sort | getfattr -hd -m - --absolute-names - 2>/dev/null | cat; find . -type f | sort | xargs -d '\n' md5sum; find dev -name '[nb]' -exec stat -c '%n %t:%T' {} +; }
diff <(list "$1") <(list "$2")`, src, dir)
	}
	if out.Len() > 2<<20 {
		t.Errorf("%d bytes", out.Len())
	}
}

// TestPackLarge: a file of a terabyte of holes takes no time, and one with more holes than a tar may have is packed with fewer.
func TestPackLarge(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "huge"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "huge"), 1<<40); err != nil {
		t.Fatal(err)
	}
	r := packDirectory(context.Background(), dir, time.Time{})
	defer r.Close()
	if _, need, err := filesystem.JudgeTar(r, 0); err != nil || need.Blocks > 2 {
		t.Fatalf("%+v, %v", need, err)
	}
	f, err := os.Create(filepath.Join(dir, "many"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const holes, step = filesystem.MaxExtents + 5000, minHole + zeroUnit
	for i := range int64(holes) {
		if _, err := f.WriteAt([]byte("x"), i*step+zeroUnit); err != nil {
			t.Fatal(err)
		}
	}
	p := packer{ctx: t.Context(), buf: make([]byte, 1<<20)}
	parts, err := p.parts(f, holes*step)
	if err != nil || len(parts) == 0 || len(parts) >= filesystem.MaxExtents {
		t.Fatalf("%d parts, %v", len(parts), err)
	}
	for i, at := 0, int64(0); i < holes; i++ {
		for at = int64(i)*step + zeroUnit; len(parts) > 0 && parts[0].At+parts[0].Size <= at; {
			parts = parts[1:]
		}
		if len(parts) == 0 || parts[0].At > at {
			t.Fatalf("byte %d is in a hole", at)
		}
	}
}

// TestPackOneFilesystem: what is mounted inside is left out, and what changes while it is read is an error.
func TestPackOneFilesystem(t *testing.T) {
	needs(t, true, "mount")
	dir := t.TempDir()
	shell(t, `cd "$1"; mkdir -p m; mount -t tmpfs none m; touch m/inside outside`, dir)
	t.Cleanup(func() {
		if err := unix.Unmount(filepath.Join(dir, "m"), 0); err != nil {
			t.Error(err)
		}
	})
	r := packDirectory(context.Background(), dir, time.Time{})
	defer r.Close()
	var got []string
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, h.Name)
	}
	if strings.Join(got, " ") != "./ ./m/ ./outside" {
		t.Errorf("%q", got)
	}
}

// TestAttributesOfTheTree: what only a filesystem knows is no part of an image.
func TestAttributesOfTheTree(t *testing.T) {
	for name, want := range map[string]bool{
		"user.note": true, "trusted.t": true, "security.capability": true, "system.posix_acl_access": true, "system.posix_acl_default": true,
		"btrfs.compression": false, "system.nfs4_acl": false, "system.ntfs_attrib": false, "com.apple.provenance": false, "users.x": false,
	} {
		if ofTree(name) != want {
			t.Errorf("%s: %t", name, !want)
		}
	}
}
