package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gprovision/forge/tool"
	"gprovision/hw/filesystem"
	"gprovision/model/bootimage"
	"gprovision/model/edit"
	"gprovision/model/fault"
	"gprovision/model/release"
	"gprovision/model/signature"
)

func needs(t testing.TB, root bool, programs ...string) {
	t.Helper()
	why := ""
	if root && os.Geteuid() != 0 {
		why = "needs root"
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			why = "program " + p + " is missing"
		}
	}
	if why == "" {
		return
	}
	skip(t, why)
}

// skip skips a test where the machine lacks what it needs. With GPROV_NO_SKIP=1 that is a failure.
func skip(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("GPROV_NO_SKIP") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

var buildTime = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func name(t testing.TB, build int) release.Name {
	t.Helper()
	n, err := release.ParseName(fmt.Sprintf("WIDGET.LNX.SHINY.2026-11-22.%04d.upd", build), "")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// goodFiles is the smallest root filesystem that can be an image.
func goodFiles(t testing.TB) map[string]string {
	return map[string]string{
		"usr/lib/systemd/systemd":          "#!systemd",
		"usr/lib/systemd/systemd-networkd": "#!networkd",
		"etc/systemd/system.conf":          "",
		"usr/bin/bash":                     "#!bash",
		"etc/passwd":                       "root:x:0:0:root:/root:/usr/bin/bash\ndaemon:*:1:1::/:/usr/sbin/nologin\nadmin:x:1001:1001::/home/admin:/usr/bin/bash\n",
		"etc/shadow":                       "root:!*:1:0:99999:7:::\ndaemon:*:1::::::\nadmin:!:1::::::\n",
		"etc/group":                        "root:x:0:\nadmin:x:1001:\n",
		"dev/.keep":                        "",
		"boot/norm_boot":                   string(bootArtifact(t, 300)),
		"var/lib/dpkg/status": "Package: b\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2\nDescription: x\n Package: fake\n\n" +
			"Package: a\nStatus: install ok installed\nArchitecture: all\nVersion: 1:1\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 3\n",
		"usr/bin/random": strings.Repeat("some content that is not random at all\n", 50_000),
	}
}

// writeTree writes files into a new directory.
func writeTree(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for n, content := range files {
		p := filepath.Join(dir, n)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if to, ok := strings.CutPrefix(content, "link:"); ok {
			if err := os.Symlink(to, p); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(p, buildTime, buildTime); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// bootArtifact is the header of a kernel: only its build number matters here.
func bootArtifact(t testing.TB, build int) []byte {
	t.Helper()
	k := make([]byte, 8192)
	k[0x1f1] = 4                    // sectors of the first part
	k[0x1fe], k[0x1ff] = 0x55, 0xaa // boot sector
	copy(k[0x202:], "HdrS")         // header
	k[0x206], k[0x207] = 0x0f, 0x02 // boot protocol 2.15
	k[0x211] = 1                    // loaded high
	k[0x20e], k[0x20f] = 0x00, 0x02 // version string at 0x200 + 0x200
	copy(k[0x400:], fmt.Sprintf("6.1.0-norm_boot (user@host) #%d SMP\x00", build))
	n, err := bootimage.BuildNumber(bytes.NewReader(k), int64(len(k)))
	if err != nil || n != uint64(build) {
		t.Fatalf("made a boot artifact with build %d, %v", n, err)
	}
	return k
}

func newKey(t testing.TB) signature.PrivateKey {
	t.Helper()
	k, err := signature.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestBuildVerifyExtract(t *testing.T) {
	needs(t, true, "xz", "tar", "minisign") // files get their owners
	ctx := context.Background()
	files := goodFiles(t)
	src := writeTree(t, files)
	out := filepath.Join(t.TempDir(), "new", "dir")
	key, other := newKey(t), newKey(t)
	stages := map[string]bool{}
	o := Options{RootFS: src, Out: out, Name: name(t, 1), Time: buildTime, Builder: "test", Preset: "0", BlockSize: 256 << 10, Key: &key, Stream: "main_systest",
		Progress: func(p Progress) { stages[p.Stage] = true }}
	res, err := Build(ctx, nil, o)
	if err != nil {
		t.Fatal(err)
	}
	if res.Blocks < 5 || res.Meta.BootBuild != 300 || res.Meta.Packages.Count != 2 || res.KeyID != key.Public().ID() || res.Unchanged {
		t.Errorf("result %+v", res)
	}
	for _, s := range []string{"scan", "compress", "sign"} {
		if !stages[s] {
			t.Errorf("no progress for %s", s)
		}
	}
	// The real programs agree.
	listing, err := exec.Command("sh", "-c", `xz -dc "$1" | tar tf -`, "-", res.File).CombinedOutput()
	if err != nil || !strings.HasPrefix(string(listing), release.MetaPath+"\n./\n") {
		t.Errorf("%v: %.300s", err, listing)
	}
	if list, err := exec.Command("xz", "--robot", "--list", res.File).CombinedOutput(); err != nil || !strings.Contains(string(list), "SHA-256") {
		t.Errorf("%v: %s", err, list)
	}
	pub := filepath.Join(t.TempDir(), "x.pub")
	if err := os.WriteFile(pub, key.Public().Text(), 0o600); err != nil {
		t.Fatal(err)
	}
	if says, err := exec.Command("minisign", "-V", "-p", pub, "-m", res.File).CombinedOutput(); err != nil || !strings.Contains(string(says), "image WIDGET.LNX.SHINY.2026-11-22.0001") {
		t.Errorf("%v: %s", err, says)
	}

	// Again: the same bytes, so it is left alone. With another content it is refused.
	again, err := Build(ctx, nil, o)
	if err != nil || !again.Unchanged {
		t.Errorf("again: %+v, %v", again, err)
	}
	p := o
	p.Source = "another text"
	if _, err := Build(ctx, nil, p); !errors.Is(err, ErrExists) {
		t.Errorf("another image of the same name: %v", err)
	}
	if leftovers(t, out) != 3 {
		t.Errorf("%d files in %s", leftovers(t, out), out)
	}

	// Verify.
	rep, err := Verify(ctx, res.File, CheckOptions{Keys: []signature.PublicKey{other.Public(), key.Public()}})
	if err != nil || !rep.Verified || !rep.Trusted || rep.Meta.Name != o.Name.Base() || rep.Entries != res.Meta.Entries {
		t.Errorf("verify: %+v, %v", rep, err)
	}
	if rep, err := Verify(ctx, res.File, CheckOptions{Workers: 1}); err != nil || !rep.Verified || rep.Trusted {
		t.Errorf("verify without key: %+v, %v", rep, err)
	}
	if _, err := Verify(ctx, res.File, CheckOptions{Keys: []signature.PublicKey{other.Public()}}); fault.Of(err) != fault.ImageSignature || !errors.Is(err, signature.ErrNoKey) {
		t.Errorf("wrong key: %v", err)
	}
	ins, err := Inspect(ctx, res.File)
	if err != nil || ins.Meta.BootBuild != 300 || ins.Meta.Stream != "main_systest" || ins.Signature.Comment != "image "+o.Name.Base() || ins.Verified ||
		ins.Streams != 1 {
		t.Errorf("inspect: %+v, %v", ins, err)
	}
	if _, err := json.Marshal(ins); err != nil {
		t.Error(err)
	}

	// Extract.
	into := filepath.Join(t.TempDir(), "into")
	ext, err := Extract(ctx, res.File, into, CheckOptions{Keys: []signature.PublicKey{key.Public()}})
	if err != nil || ext.Entries != rep.Entries+1 {
		t.Fatalf("extract: %+v, %v", ext, err)
	}
	for n, content := range files {
		b, err := os.ReadFile(filepath.Join(into, n))
		if err != nil || string(b) != content {
			t.Errorf("%s: %v", n, err)
		}
	}
	b, err := os.ReadFile(filepath.Join(into, release.MetaPath))
	if err != nil {
		t.Fatal(err)
	}
	if m, err := release.ParseMeta(b); err != nil || fmt.Sprint(m) != fmt.Sprint(res.Meta) {
		t.Errorf("%+v, %v", m, err)
	}
	if _, err := Extract(ctx, res.File, into, CheckOptions{}); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("extract into a full directory: %v", err)
	}

	// Renamed to be the newest, signature and all.
	renamed := filepath.Join(out, name(t, 9999).String())
	copyFile(t, res.File, renamed)
	copyFile(t, res.File+signature.Suffix, renamed+signature.Suffix)
	if _, err := Verify(ctx, renamed, CheckOptions{Keys: []signature.PublicKey{key.Public()}}); fault.Of(err) != fault.ImageSignature || !errors.Is(err, signature.ErrComment) {
		t.Errorf("renamed, with key: %v", err)
	}
	if _, err := Verify(ctx, renamed, CheckOptions{}); fault.Of(err) != fault.ImageName {
		t.Errorf("renamed, without key: %v", err)
	}
	if _, err := Inspect(ctx, renamed); fault.Of(err) != fault.ImageName {
		t.Errorf("renamed, inspect: %v", err)
	}
	// Damaged, cut, unsigned, badly named, no image.
	data, err := os.ReadFile(res.File)
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(data)
	bad[len(bad)/2] ^= 4
	tests := []struct {
		name    string
		content []byte
		keys    []signature.PublicKey
		want    *fault.Fault
	}{
		{"bad/" + name(t, 1).String(), bad, nil, fault.ImageCorrupt},
		{name(t, 3).String(), data[:len(data)/2/4*4], nil, fault.ImageCorrupt},
		{name(t, 4).String(), data, []signature.PublicKey{key.Public()}, fault.ImageUnsigned},
		{"WIDGET.LNX.SHINY.2026-02-30.0001.upd", data, nil, fault.ImageName},
		{name(t, 5).String(), []byte("hello"), nil, fault.ImageCorrupt},
		{name(t, 6).String(), nil, nil, fault.ImageCorrupt},
	}
	for _, tt := range tests {
		p := filepath.Join(out, tt.name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, tt.content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(ctx, p, CheckOptions{Keys: tt.keys}); fault.Of(err) != tt.want {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want.Code)
		}
	}
	list, err := List(ctx, out, ListOptions{})
	if err != nil || len(list) != 7 || list[0].Name != name(t, 9999).Base() || list[len(list)-1].Problem == "" {
		t.Errorf("list: %+v, %v", list, err)
	}
	for _, missing := range []string{name(t, 77).String(), "image.upd"} {
		if _, err := Verify(ctx, filepath.Join(out, missing), CheckOptions{}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("missing file %s: %v", missing, err)
		}
	}

	// Sign by itself.
	sig, err := Sign(ctx, filepath.Join(out, name(t, 1).String()), other, nil)
	if err != nil || sig.Comment != "image "+name(t, 1).Base() {
		t.Errorf("sign: %+v, %v", sig, err)
	}
	if _, err := Sign(ctx, filepath.Join(out, name(t, 9999).String()), other, nil); fault.Of(err) != fault.ImageName {
		t.Errorf("sign a renamed one: %v", err)
	}
	if _, err := Sign(ctx, filepath.Join(out, name(t, 5).String()), other, nil); fault.Of(err) != fault.ImageCorrupt {
		t.Errorf("sign what is no image: %v", err)
	}
}

func leftovers(t *testing.T, dir string) int {
	t.Helper()
	l, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(l)
}

// gnuTar packs a directory with all that an image keeps.
func gnuTar(dir string) []string {
	return []string{"--create", "--format=posix", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", "--sparse", "--sort=name", "--file=-", "--directory=" + dir, "."}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestInputs builds from every form of input; the images differ only in how imgmeta.json names their source.
func TestInputs(t *testing.T) {
	needs(t, true, "xz", "tar", "zstd") // files get their owners
	src := writeTree(t, goodFiles(t))
	dir := t.TempDir()
	plain := filepath.Join(dir, "r.tar")
	pack(t, plain, src)
	sh := func(script string) string {
		t.Helper()
		cmd := exec.Command("sh", "-ec", script)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
		return ""
	}
	sh("gzip -k r.tar; zstd -q r.tar; xz -k0 r.tar; xz -0 --check=sha256 -c r.tar > s.tar.xz; bzip2 -k r.tar 2>/dev/null || printf 'BZh' > r.tar.bz2; head -c 700 /dev/urandom > junk; : > empty; head -c 3000 r.tar > cut.tar")
	sh(`mkdir layout; cp r.tar layout/layer.tar; id=$(sha256sum r.tar | cut -d' ' -f1)
printf '{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":["sha256:%s"]}}' $id > layout/config.json
printf '[{"Config":"config.json","RepoTags":["x:1"],"Layers":["layer.tar"]}]' > layout/manifest.json
tar -C layout -cf saved.tar manifest.json config.json layer.tar; gzip -k saved.tar`)
	sh("mkdir oci; echo '{}' > oci/oci-layout; tar -C oci -cf oci.tar oci-layout; echo 'packages: [x]' > recipe.yaml; echo 'suite: [' > broken.yml")
	// The orders of files and the names in archives of podman and skopeo, of crane and kaniko, of Jib, and of old docker save.
	sh(`mkdir docker; cd docker; id=$(sha256sum ../r.tar | cut -d' ' -f1); config=$(sha256sum ../layout/config.json | cut -d' ' -f1); gzip -nc ../r.tar > z; z=$(sha256sum z | cut -d' ' -f1)
cp ../r.tar $id.tar; mkdir $id; ln -s ../$id.tar $id/layer.tar; echo 1.0 > $id/VERSION; mv z $z.tar.gz; cp ../layout/config.json $config.json; cp $config.json sha256:$config; cp $config.json config.json
m() { printf '[{"Config":"%s","RepoTags":["x:1"],"Layers":["%s"]}]' $1 $2 > manifest.json; }
m $config.json $id.tar; tar -cf ../skopeo.tar $id.tar $id $config.json manifest.json
m sha256:$config $z.tar.gz; tar --force-local -cf ../crane.tar sha256:$config $z.tar.gz manifest.json
m config.json $z.tar.gz; tar -cf ../jib.tar $z.tar.gz config.json manifest.json
m $config.json $id/layer.tar; tar -cf ../old.tar $id.tar $id $config.json manifest.json
tar -C '` + src + `' --format=v7 -cf ../v7.tar .; zstd -q --long=30 < ../r.tar > ../long.tar.zst`)
	var first []byte
	for _, in := range []string{src, plain, plain + ".gz", plain + ".zst", plain + ".xz", filepath.Join(dir, "s.tar.xz"), filepath.Join(dir, "long.tar.zst")} {
		out := t.TempDir()
		res, err := Build(context.Background(), nil, Options{RootFS: in, Out: out, Name: name(t, 1), Time: buildTime, Preset: "0", Source: "x"})
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		b, err := os.ReadFile(res.File)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = b
		}
		if !bytes.Equal(b, first) {
			t.Errorf("the image from %s is another one", in)
		}
	}
	// An OCI image gives the same files; its tar is written anew.
	for _, in := range []string{"saved.tar", "saved.tar.gz", "skopeo.tar", "crane.tar", "jib.tar", "old.tar", "v7.tar"} {
		reference := map[bool]string{true: "x:1"}[in != "v7.tar"]
		res, err := Build(context.Background(), nil, Options{RootFS: filepath.Join(dir, in), Reference: reference, Out: t.TempDir(), Name: name(t, 1), Time: buildTime, Preset: "0"})
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		into := t.TempDir()
		if _, err := Extract(context.Background(), res.File, into, CheckOptions{}); err != nil {
			t.Errorf("%s: %v", in, err)
		}
		if out, err := exec.Command("diff", "-r", src, into).CombinedOutput(); strings.TrimSpace(string(out)) != "Only in "+into+"/etc: provisioning" {
			t.Errorf("%s: %v\n%s", in, err, out)
		}
	}
	if _, err := Build(context.Background(), nil, Options{RootFS: plain, Reference: "x", Out: t.TempDir(), Name: name(t, 1)}); err == nil || !strings.Contains(err.Error(), "reference") {
		t.Errorf("a tar with a reference: %v", err)
	}
	refused := map[string]string{
		"missing": "no such file", "oci": "OCI", "oci.tar": "OCI", "recipe.yaml": "recipe", "broken.yml": "recipe", "r.tar.bz2": "bzip2", "junk": "not a directory", "empty": "not a directory", "cut.tar": "",
	}
	for in, want := range refused {
		out := t.TempDir()
		_, err := Build(context.Background(), nil, Options{RootFS: filepath.Join(dir, in), Out: out, Name: name(t, 1), Time: buildTime, Preset: "0"})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", in, err)
		}
		if leftovers(t, out) != 0 {
			t.Errorf("%s: something is left", in)
		}
	}
}

// pack makes the tar that a build of a directory would make.
func pack(t *testing.T, file, dir string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := packDirectory(context.Background(), dir, time.Time{})
	defer r.Close()
	if _, err := io.Copy(f, r); err != nil {
		t.Fatal(err)
	}
}

func TestContract(t *testing.T) {
	needs(t, false, "xz", "tar")
	tests := []struct {
		name string
		edit func(m map[string]string)
		want []string // each in one problem
	}{
		{"nothing", func(m map[string]string) {}, nil},
		{"no systemd", func(m map[string]string) { delete(m, "usr/lib/systemd/systemd") }, []string{"systemd is what the unit starts"}},
		{"no networkd", func(m map[string]string) { delete(m, "usr/lib/systemd/systemd-networkd") }, []string{"systemd-networkd manages"}},
		{"no boot artifact", func(m map[string]string) { delete(m, "boot/norm_boot") }, []string{"--add FILE:/boot/norm_boot", "the directory is missing"}},
		{"no real boot artifact", func(m map[string]string) { m["boot/norm_boot"] = "hello" }, []string{"not a boot artifact"}},
		{"root has a password", func(m map[string]string) { m["etc/shadow"] = "root:$y$abc:1\nadmin:!:1\n" }, []string{"account root has a password"}},
		{"root has none", func(m map[string]string) { m["etc/shadow"] = "root::1\nadmin:*:1\n" }, []string{"without a password"}},
		{"admin has one", func(m map[string]string) { m["etc/shadow"] = "root:!:1\nadmin:$6$x:1\n" }, []string{"all units would share"}},
		{"passwd has it", func(m map[string]string) {
			m["etc/passwd"] = "root:x:0:0::/root:/bin/sh\ntoor:abc:2:0::/:/bin/sh\nopen::3:0::/:/bin/sh\nadmin:x:1:1::/home/admin:/usr/bin/bash\n"
		}, []string{"account toor", "account open"}},
		{"no admin", func(m map[string]string) {
			m["etc/passwd"], m["etc/shadow"], m["etc/group"] = "root:x:0:0::/root:/bin/sh\n", "root:!:1\n", "root:x:0:\n"
		}, []string{"no account admin", "no group admin"}},
		{"admin without a shadow line", func(m map[string]string) { m["etc/shadow"] = "root:!:1\n" }, []string{"no line for admin"}},
		{"admin without a shell", func(m map[string]string) {
			m["etc/passwd"] = "root:x:0:0::/root:/usr/bin/bash\nadmin:x:1:1::/home/admin:/usr/sbin/nologin\n"
		}, []string{"shell /usr/sbin/nologin"}},
		{"no passwd", func(m map[string]string) { delete(m, "etc/passwd") }, []string{"missing, or not a regular file"}},
		{"no shadow", func(m map[string]string) { delete(m, "etc/shadow") }, []string{"missing, or not a regular file"}},
		{"host key", func(m map[string]string) { m["etc/ssh/ssh_host_rsa_key"] = "x" }, []string{"SSH host key"}},
		{"public host key alone", func(m map[string]string) { m["etc/ssh/ssh_host_rsa_key.pub"] = "x" }, nil},
		{"root has an SSH key", func(m map[string]string) { m["root/.ssh/authorized_keys"] = "ssh-ed25519 x" }, []string{"account root may log in with an SSH key"}},
		{"admin expires", func(m map[string]string) {
			m["etc/shadow"] = "root:!:1\nadmin:!:19000:0:99999:7::1:\n"
		}, []string{"expires on 1970-01-02"}},
		{"admin must change its password", func(m map[string]string) { m["etc/shadow"] = "root:!:1\nadmin:!:0:0:99999:7:::\n" }, []string{"at the first login"}},
		{"admin is closed when its password is old", func(m map[string]string) { m["etc/shadow"] = "root:!:1\nadmin:!:19000:0:90:7:14::\n" }, []string{"closed 14 days after"}},
		{"passwd of Windows", func(m map[string]string) {
			m["etc/passwd"] = strings.ReplaceAll(m["etc/passwd"], "\n", "\r\n")
		}, []string{"those of Windows"}},
		{"passwd with a byte order mark", func(m map[string]string) { m["etc/passwd"] = "\xef\xbb\xbf" + m["etc/passwd"] }, []string{"byte order mark"}},
		{"admin's shell is not installed", func(m map[string]string) { delete(m, "usr/bin/bash") }, []string{"shell /usr/bin/bash, which is not there"}},
		{"admin's shell is the one that is meant by none", func(m map[string]string) {
			m["etc/passwd"] = "root:x:0:0::/root:/usr/bin/bash\nadmin:x:1:1::/home/admin:\n"
		}, []string{"shell /bin/sh, which is not there"}},
		{"two admins", func(m map[string]string) { m["etc/passwd"] += "admin:x:1002:1001::/home/admin:/usr/bin/bash\n" }, []string{"two lines for admin"}},
		{"two lines in shadow", func(m map[string]string) { m["etc/shadow"] += "admin:!:1::::::\n" }, []string{"two lines for admin"}},
		{"root by another name", func(m map[string]string) { m["etc/passwd"] += "toor:x:00:0::/var:/usr/bin/bash\n" }, []string{"root by another name"}},
		{"admin is root", func(m map[string]string) {
			m["etc/passwd"] = "root:x:0:0::/root:/usr/bin/bash\nadmin:x:0:0::/home/admin:/usr/bin/bash\n"
		}, []string{"account admin has the user ID 0"}},
		{"admin by another name", func(m map[string]string) { m["etc/passwd"] += "helper:x:1001:0::/var:/usr/bin/bash\n" }, []string{"admin by another name"}},
		{"no number for a user", func(m map[string]string) { m["etc/passwd"] += "helper:x::0::/var:/usr/bin/bash\n" }, []string{"which is none"}},
		{"lines of 70 kB", func(m map[string]string) {
			long := "long:x:5:" + strings.Repeat("member,", 10_000) + "\n"
			m["etc/group"], m["etc/shadow"] = long+m["etc/group"], "long:!"+strings.Repeat("x", 70_000)+":1\n"+m["etc/shadow"]+"open::1\n"
			m["etc/passwd"] = "long:x:5:5:" + strings.Repeat("x", 70_000) + ":/var:/usr/bin/bash\n" + m["etc/passwd"]
		}, []string{"account open may log in without"}},
		{"nobody may log in", func(m map[string]string) { m["etc/nologin"] = "" }, []string{"nobody but root"}},
		{"a second file of SSH keys", func(m map[string]string) { m["root/.ssh/authorized_keys2"] = "ssh-ed25519 x" }, []string{"account root may log in with an SSH key"}},
		{"SSH keys behind links", func(m map[string]string) {
			m["var/roothome/keys/list"] = "ssh-ed25519 x"
			m["root"], m["var/roothome/.ssh"], m["var/roothome/keys/authorized_keys"] = "link:var/roothome", "link:keys", "link:/root/keys/list"
		}, []string{"account root may log in with an SSH key"}},
		{"a link to no SSH keys", func(m map[string]string) { m["root/.ssh/authorized_keys"] = "link:/dev/null" }, nil},
		{"it was a container", func(m map[string]string) { m[".dockerenv"] = "" }, []string{"one in a container"}},
		{"admin has an SSH key", func(m map[string]string) { m["home/admin/.ssh/authorized_keys"] = "ssh-ed25519 x" }, nil},
		{"other boot files", func(m map[string]string) { m["boot/grub/grub.cfg"], m["boot/initrd.img"] = "x", "y" }, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files := goodFiles(t)
			tt.edit(files)
			src := writeTree(t, files)
			out := t.TempDir()
			o := Options{RootFS: src, Out: out, Name: name(t, 1), Time: buildTime, Preset: "0"}
			_, err := Build(context.Background(), nil, o)
			var c *ContractError
			if !errors.As(err, &c) {
				if err != nil || len(tt.want) > 0 {
					t.Errorf("got %v", err)
				}
				return
			}
			if len(c.Problems) != len(tt.want) || !errors.Is(err, ErrContract) {
				t.Errorf("got %v", err)
			}
			for _, w := range tt.want {
				if !slices.ContainsFunc(c.Problems, func(p Problem) bool { return strings.Contains(p.Text+p.Hint, w) }) {
					t.Errorf("%q is not among %v", w, err)
				}
			}
			if leftovers(t, out) != 0 {
				t.Error("something is left")
			}
			o.AllowIncomplete = true
			res, err := Build(context.Background(), nil, o)
			if err != nil || len(res.Warnings) != len(tt.want) {
				t.Fatalf("incomplete: %+v, %v", res.Warnings, err)
			}
			// What the build complains of is for the build alone.
			if rep, err := Verify(context.Background(), res.File, CheckOptions{}); err != nil || !rep.Verified {
				t.Errorf("verify: %+v, %v", rep, err)
			}
		})
	}
}

// TestLeftovers: what building in a container leaves behind is told, and does not stop a build.
func TestLeftovers(t *testing.T) {
	needs(t, false, "xz")
	files := goodFiles(t)
	for n, c := range map[string]string{"run/.containerenv": "", "run/systemd/container": "docker", "etc/resolv.conf": "",
		"usr/sbin/policy-rc.d": "#!/bin/sh\nexit 101\n", "etc/shadow": "root:!:1\nadmin:!:19000:0:90:7:::\n"} {
		files[n] = c
	}
	res, err := Build(context.Background(), nil, Options{RootFS: writeTree(t, files), Out: t.TempDir(), Name: name(t, 1), Time: buildTime, Preset: "0"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range res.Warnings {
		got = append(got, w.Path)
	}
	want := []string{"run/.containerenv", "run/systemd/container", "etc/resolv.conf", "usr/sbin/policy-rc.d", "etc/shadow"}
	if !slices.Equal(got, want) {
		t.Errorf("warnings about %q, want %q", got, want)
	}
	files["etc/resolv.conf"] = "nameserver 192.0.2.1\n"
	for _, n := range []string{"run/.containerenv", "run/systemd/container", "usr/sbin/policy-rc.d"} {
		delete(files, n)
	}
	files["etc/shadow"] = "root:!:1\nadmin:!:19000:0:99999:7:::\n"
	if res, err := Build(context.Background(), nil, Options{RootFS: writeTree(t, files), Out: t.TempDir(), Name: name(t, 1), Time: buildTime, Preset: "0"}); err != nil || len(res.Warnings) > 0 {
		t.Errorf("%+v, %v", res.Warnings, err)
	}
}

func TestAdd(t *testing.T) {
	needs(t, false, "xz", "tar")
	files := goodFiles(t)
	delete(files, "boot/norm_boot")
	src := writeTree(t, files)
	if err := os.Symlink("usr/lib", filepath.Join(src, "lib")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/usr/bin", filepath.Join(src, "bin")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(src, "usr/bin/random"), filepath.Join(src, "usr/bin/second")); err != nil {
		t.Fatal(err)
	}
	local := writeTree(t, map[string]string{"boot": string(bootArtifact(t, 7)), "unit": "program", "passwd": "root:x:0:0::/root:/bin/bash\nadmin:x:1:1::/home/admin:/bin/bash\n"})
	if err := os.Chmod(filepath.Join(local, "unit"), 0o755); err != nil {
		t.Fatal(err)
	}
	l := func(n string) string { return filepath.Join(local, n) }
	out := t.TempDir()
	o := Options{RootFS: src, Out: out, Name: name(t, 1), Time: buildTime, Preset: "1", Add: []File{
		{l("boot"), "/boot/norm_boot", 0o644}, {l("unit"), "bin/gprov-unit", 0}, {l("unit"), "/lib/new/dir/x", 0o755 | fs.ModeSetuid}, {l("passwd"), "/etc/passwd", 0},
	}}
	res, err := Build(context.Background(), nil, o)
	if err != nil {
		t.Fatal(err)
	}
	if res.Meta.BootBuild != 7 {
		t.Errorf("boot build %d", res.Meta.BootBuild)
	}
	if _, err := Verify(context.Background(), res.File, CheckOptions{}); err != nil {
		t.Fatal(err)
	}
	listing, err := exec.Command("sh", "-c", `xz -dc "$1" | tar tvf - --numeric-owner`, "-", res.File).CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"-rw-r--r-- 0/0 ", " boot/norm_boot\n", " usr/bin/gprov-unit\n", " usr/lib/new/dir/\n", " usr/lib/new/dir/x\n", "-rwsr-xr-x 0/0 ", " etc/passwd\n"} {
		if !strings.Contains(string(listing), want) {
			t.Errorf("%q is not in\n%s", want, listing)
		}
	}
	if strings.Contains(string(listing), "./etc/passwd") || !strings.Contains(string(listing), "/second link to ./usr/bin/random\n") {
		t.Errorf("wrong entries:\n%s", listing)
	}
	refused := map[string]File{
		"hard link":    {l("unit"), "/usr/bin/random", 0},
		"directory":    {l("unit"), "/usr/bin", 0},
		"no such":      {l("none"), "/x", 0},
		"regular":      {local, "/x", 0},
		"not a dir":    {l("unit"), "/etc/group/x", 0},
		"cannot be":    {l("unit"), "/", 0},
		"cannot be us": {l("unit"), "/" + release.MetaPath, 0},
		"two files":    {l("unit"), "/bin/gprov-unit", 0},
	}
	for want, f := range refused {
		p := o
		p.Add = append(slices.Clone(o.Add), f)
		if _, err := Build(context.Background(), nil, p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", f, err)
		}
	}
}

func TestBuildErrors(t *testing.T) {
	needs(t, false, "xz", "tar")
	src := writeTree(t, goodFiles(t))
	base := Options{RootFS: src, Out: t.TempDir(), Name: name(t, 1), Time: buildTime, Preset: "0"}
	for _, edit := range []func(*Options){
		func(o *Options) { o.Preset = "10" },
		func(o *Options) { o.Preset = "-T0" },
		func(o *Options) { o.BlockSize = 5 },
		func(o *Options) { o.Name = release.Name{} },
		func(o *Options) { o.Out = filepath.Join(src, "etc/passwd") },
	} {
		o := base
		edit(&o)
		if _, err := Build(context.Background(), nil, o); err == nil {
			t.Errorf("%+v accepted", o)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	o := base
	o.Progress = func(p Progress) {
		if p.Stage == "compress" {
			cancel()
		}
	}
	if _, err := Build(ctx, nil, o); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if leftovers(t, base.Out) != 0 {
		t.Error("something is left")
	}
	if args, err := xzPreset("9e"); err != nil || args[0] != "--lzma2=preset=9e,dict=8MiB" {
		t.Errorf("%v, %v", args, err)
	}
}

// TestHostileInput: what a restore would refuse is refused when the image is built, and when one is verified.
func TestHostileInput(t *testing.T) {
	needs(t, false, "xz")
	h := func(name string, kind byte, link string) *tar.Header {
		return &tar.Header{Name: name, Typeflag: kind, Linkname: link, Mode: 0o755}
	}
	tests := map[string][]*tar.Header{
		"dots":         {h("a/../../x", tar.TypeReg, "")},
		"absolute":     {h("/x", tar.TypeReg, "")},
		"through link": {h("a", tar.TypeSymlink, "/etc"), h("a/x", tar.TypeReg, "")},
		"hard outside": {h("a", tar.TypeLink, "../x")},
		"hard nothing": {h("a", tar.TypeLink, "x")},
		"root as link": {h("./", tar.TypeSymlink, "/")},
		"unknown type": {h("a", 'M', "")},
		"empty":        nil,
	}
	for what, headers := range tests {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range headers {
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
		}
		w.Close()
		dir := t.TempDir()
		in := filepath.Join(dir, "x.tar")
		if err := os.WriteFile(in, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Build(context.Background(), nil, Options{RootFS: in, Out: dir, Name: name(t, 1), Preset: "0", AllowIncomplete: true}); err == nil {
			t.Errorf("%s: built", what)
		}
		file := filepath.Join(dir, name(t, 2).String())
		compressed, err := tool.Output(context.Background(), nil, tool.Command{Name: "xz", Args: []string{"-0", "--check=sha256", "-c"}, Stdin: &b})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, compressed, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(context.Background(), file, CheckOptions{}); fault.Of(err) != fault.ImageCorrupt {
			t.Errorf("%s: verify says %v", what, err)
		}
		if what == "empty" {
			continue
		}
		if _, err := Extract(context.Background(), file, filepath.Join(dir, "into"), CheckOptions{}); err == nil {
			t.Errorf("%s: extracted", what)
		}
	}
	// Data behind the end of a tar, where GNU tar does not look.
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(h("a", tar.TypeReg, ""))
	w.Close()
	in := filepath.Join(t.TempDir(), "x.tar")
	if err := os.WriteFile(in, append(b.Bytes(), "hidden"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Build(context.Background(), nil, Options{RootFS: in, Out: t.TempDir(), Name: name(t, 1), Preset: "0", AllowIncomplete: true}); err == nil || !strings.Contains(err.Error(), "behind the end") {
		t.Errorf("got %v", err)
	}
}

// TestRewriteKeepsEverything: a tar of every kind of entry comes out byte for byte, and a dropped one leaves no trace.
func TestRewriteKeepsEverything(t *testing.T) {
	needs(t, true, "tar", "setfattr", "setfacl", "setcap")
	src := t.TempDir()
	script := `set -e; cd "$1"; mkdir -p etc/provisioning dev a/b
head -c 1000 /dev/urandom > a/x; ln a/x a/y; ln -s x a/z; mkfifo dev/f; mknod dev/n c 1 3
truncate -s 5M a/sparse; echo mid | dd of=a/sparse bs=1 seek=2000000 conv=notrunc status=none
for i in $(seq 0 2 40); do echo x | dd of=a/many bs=1 seek=$((i*65536)) conv=notrunc status=none; done
cp /bin/true a/cap; setcap cap_net_raw=ep a/cap; setfattr -n user.x -v y a/x; setfacl -m u:7:rw a/x
echo old > etc/provisioning/imgmeta.json; n=$(printf 'n%.0s' $(seq 180)); mkdir $n; echo l > $n/$n; ln -s $n/$n/$n long`
	if out, err := exec.Command("bash", "-c", script, "-", src).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, args := range [][]string{gnuTar(src), {"-c", "--format=gnu", "--sparse", "-C", src, "."}, {"-c", "--format=posix", "--sparse", "--sparse-version=0.1", "-C", src, "."}} {
		raw, err := tool.Output(context.Background(), nil, tool.Command{Name: "tar", Args: args})
		if err != nil {
			t.Fatal(err)
		}
		var all, less bytes.Buffer
		n := 0
		if err := rewrite(&all, bytes.NewReader(raw), nil, func(*tar.Header) { n++ }); err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(raw, all.Bytes()) || len(bytes.Trim(raw[all.Len():], "\x00")) > 0 || all.Len()%512 != 0 {
			t.Errorf("%v: %d of %d bytes, other ones", args, all.Len(), len(raw))
		}
		if err := rewrite(&less, bytes.NewReader(raw), map[string]bool{release.MetaPath: true, "a/many": true}, func(*tar.Header) { n-- }); err != nil {
			t.Fatal(err)
		}
		if n != 2 {
			t.Errorf("%d entries dropped, want 2", n)
		}
		count := 0
		err = filesystem.WalkTar(bytes.NewReader(append(less.Bytes(), make([]byte, 1024)...)), func(h *tar.Header, r io.Reader) error {
			count++
			if strings.Contains(h.Name, "imgmeta") || strings.HasSuffix(h.Name, "many") {
				t.Errorf("%s is still there", h.Name)
			}
			_, err := io.Copy(io.Discard, r)
			return err
		})
		if err != nil || count == 0 {
			t.Errorf("%v: %v", args, err)
		}
		into := t.TempDir()
		if _, err := filesystem.Unpack(context.Background(), into, io.MultiReader(&less, bytes.NewReader(make([]byte, 1024))), filesystem.UnpackOptions{}); err != nil {
			t.Errorf("%v: %v", args, err)
		}
		if out, err := exec.Command("cmp", filepath.Join(src, "a/sparse"), filepath.Join(into, "a/sparse")).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", args, out)
		}
	}
}

func FuzzRewrite(f *testing.F) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Name: "a", Typeflag: tar.TypeReg, Size: 3, PAXRecords: map[string]string{"SCHILY.xattr.user.x": "y"}})
	w.Write([]byte("abc"))
	w.WriteHeader(&tar.Header{Name: "drop", Typeflag: tar.TypeReg, Size: 3})
	w.Write([]byte("abc"))
	w.Close()
	good := [][]byte{b.Bytes()}
	// Sparse files in each form, where GNU tar is there to make them.
	dir := f.TempDir()
	for _, name := range []string{"a", "drop", "z"} {
		file, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			f.Fatal(err)
		}
		for i := range 6 {
			if _, err := file.WriteAt([]byte("data"), int64(i)<<17); err != nil {
				f.Fatal(err)
			}
		}
		file.Close()
	}
	for _, args := range [][]string{{"--format=gnu"}, {"--format=posix"}, {"--format=posix", "--sparse-version=0.0"}, {"--format=posix", "--sparse-version=0.1"}} {
		if out, err := exec.Command("tar", append(args, "--sparse", "-c", "-C", dir, "a", "drop", "z")...).Output(); err == nil {
			good = append(good, out)
		}
	}
	for _, s := range edit.Scripts() {
		for i := range len(good) {
			f.Add(uint8(i), s)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, script []byte) {
		b := edit.Tar(good[int(which)%len(good)], script)
		var out bytes.Buffer
		n := 0
		if rewrite(&out, bytes.NewReader(b), map[string]bool{"drop": true}, func(*tar.Header) { n++ }) != nil {
			return
		}
		if out.Len()%512 != 0 || out.Len() > len(b) {
			t.Errorf("%d bytes from %d", out.Len(), len(b))
		}
		m := 0
		tr := tar.NewReader(&out)
		for {
			h, err := tr.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if h.Typeflag != tar.TypeXGlobalHeader {
				m++
			}
		}
		if n != m {
			t.Errorf("%d entries copied, %d there", n, m)
		}
	})
}
