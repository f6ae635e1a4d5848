package lab_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"gprovision/lab"
)

// product is what a company has made with the old release: keys, a server, boot artifacts, a signed image and a manifest.
func (o old) product(t *testing.T, debian string) string {
	t.Helper()
	tiny := filepath.Join(t.TempDir(), "tiny.tar")
	f, err := os.Create(tiny)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(lab.TinyRoot(f, o.program("tiny"), "1", nil, o.program("gprov-unit")), f.Close()); err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("tinyroot_test.go")
	if err != nil {
		t.Fatal(err)
	}
	cache, err := lab.OpenCache("")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := cache.Get(t.Context(), "product-"+o.version, lab.Key("product 1", filepath.Base(o.dir), filepath.Base(debian), string(source)), func(path string) error {
		return o.makeProduct(t.Context(), path, debian, tiny)
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// oldPolicy is that of the old release's artifacts.
func oldPolicy(public, ca string) map[string]any {
	return map[string]any{"version": 1, "keys": []string{public}, "serverCA": ca, "bootArgs": "console=ttyS0,115200 panic=10 quiet", "rootWaitSeconds": 20}
}

// makeProduct does what a company did with the old release, by its commands.
func (o old) makeProduct(ctx context.Context, dir, debian, tiny string) error {
	at := func(name string) string { return filepath.Join(dir, name) }
	gprov := func(args ...string) error {
		cmd := exec.CommandContext(ctx, o.program("gprov"), args...)
		cmd.Env = append(os.Environ(), "BUILD_NUMBER=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("gprov %s of %s: %w: %s", strings.Join(args, " "), o.version, err, out)
		}
		return nil
	}
	data, files := at("data"), at("data/files")
	if err := os.MkdirAll(files, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(at("admin.password"), []byte(password.Reveal()+"\n"), 0o600); err != nil {
		return err
	}
	if err := errors.Join(gprov("keys", "new", "--out", at("product")), gprov("vault", "keygen", "--out", at("operator")),
		gprov("serve", "--data", data, "--init", "--admin-password-file", at("admin.password"))); err != nil {
		return err
	}
	public, err1 := os.ReadFile(at("product.pub"))
	ca, err2 := os.ReadFile(at("data/ca.pem"))
	operator, err3 := os.ReadFile(at("operator.pub"))
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	policy, err := json.Marshal(oldPolicy(strings.Split(string(public), "\n")[1], string(ca)))
	if err != nil {
		return err
	}
	specs, err := json.Marshal(map[string]any{"DevCodeName": lab.PlatformName, "Recovery": map[string]any{"Size": lab.RecoverySize},
		"MainDiskConfigs": [][]map[string]any{{{"Size": lab.MainSize}}}})
	if err != nil {
		return err
	}
	if err := errors.Join(os.WriteFile(at("policy.json"), policy, 0o644), os.WriteFile(at("specs.json"), specs, 0o644), os.WriteFile(at("data/operators.txt"), operator, 0o644)); err != nil {
		return err
	}
	build := []string{"boot", "build", "--rootfs", debian, "--policy", at("policy.json")}
	image := filepath.Join(files, oldImage)
	for _, args := range [][]string{
		append(build, "--out", filepath.Join(files, lab.BootFile)),
		append(build, "--provision", "--out", filepath.Join(files, lab.ProvisionFile)),
		{"image", "build", "--rootfs", tiny, "--add", filepath.Join(files, lab.BootFile) + ":/boot/" + lab.BootFile, "--out", files, "--name", oldImage, "--key", at("product.key"), "--preset", "0"},
		{"manifest", "make", "--out", filepath.Join(files, lab.ManifestFile), "--image", image, "--boot", filepath.Join(files, lab.BootFile), "--specs", at("specs.json"),
			"--log-endpoint", "https://" + lab.ServerAddr.Addr().String() + ":8443", "--key", at("product.key"), "--product", lab.PlatformName, "--serial", "1"},
	} {
		if err := gprov(args...); err != nil {
			return err
		}
	}
	return nil
}

// oldImage is the image of old products.
const oldImage = "WIDGET.LNX.SHINY.2026-11-26.0001.upd"

// TestImagesBothWays: an image of an old release verifies with the newest gprov, and unpacks to the same tree, and the other way round.
func TestImagesBothWays(t *testing.T) { eachEnd(t, testImages) }

func testImages(t *testing.T, r released) {
	if os.Geteuid() != 0 {
		skip(t, "unpacking owners needs root")
	}
	o, l := r.programs(t), programs(t)
	product := o.product(t, l.debian)
	files, next, key := filepath.Join(product, "data", "files"), o.newest(t, l, product), filepath.Join(product, "product.pub")
	for maker, image := range map[string]string{r.version: filepath.Join(files, oldImage), "the newest": filepath.Join(next, newestImage)} {
		var trees []map[string]string
		for reader, gprov := range map[string]string{r.version: o.program("gprov"), "the newest": l.gprov} {
			into := filepath.Join(t.TempDir(), "tree")
			for _, args := range [][]string{{"image", "verify", image, "--key", key}, {"image", "inspect", image, "--json"}, {"image", "extract", image, "--key", key, "--into", into}} {
				if out, err := exec.Command(gprov, args...).CombinedOutput(); err != nil {
					t.Errorf("image of %s: %s %s with %s: %v: %s", maker, args[0], args[1], reader, err, out)
				}
			}
			trees = append(trees, wholeTree(t, into))
		}
		if len(trees[0]) < 40 || !reflect.DeepEqual(trees[0], trees[1]) {
			t.Errorf("the image of %s unpacks to two trees:\n%v\n%v", maker, trees[0], trees[1])
		}
	}
	for maker, dir := range map[string]string{r.version: files, "the newest": next} {
		for reader, gprov := range map[string]string{r.version: o.program("gprov"), "the newest": l.gprov} {
			if out, err := exec.Command(gprov, "boot", "inspect", "--json", filepath.Join(dir, lab.BootFile)).CombinedOutput(); err != nil || !json.Valid(out) {
				t.Errorf("boot artifact of %s, inspected by %s: %v: %s", maker, reader, err, out)
			}
			if out, err := exec.Command(gprov, "manifest", "check", filepath.Join(dir, lab.ManifestFile)).CombinedOutput(); err != nil {
				t.Errorf("manifest of %s, checked by %s: %v: %s", maker, reader, err, out)
			}
		}
	}
}

// wholeTree describes all that is below dir, times of files included.
func wholeTree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := tree(t, dir)
	for name := range out {
		st, err := os.Lstat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().IsRegular() || st.Mode()&fs.ModeSymlink != 0 {
			out[name] += st.ModTime().UTC().Format(" 2006-01-02T15:04:05")
		}
	}
	return out
}
