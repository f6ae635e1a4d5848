package sysroot

import (
	"archive/tar"
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gprovision/model/edit"
)

const confDir = "/etc/provisioning"

func own(name string) File {
	return File{name, []byte("[Match]\nName=eth0\n\n[Network]\nAddress=10.1.2.3/24\nAddress=10.1.2.4/24\n")}
}

// TestNetworkSurvives follows a network configuration from a running system through two restores.
func TestNetworkSurvives(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	first := image(t)
	if _, _, err := SaveNetwork(first, confDir); !errors.Is(err, ErrNoNetworkRecord) {
		t.Errorf("an image as it is: %v", err)
	}
	if err := Configure(first, log, config()); err != nil {
		t.Fatal(err)
	}
	if b, left, err := SaveNetwork(first, confDir); b != nil || err != nil || len(left) > 0 {
		t.Errorf("nothing was changed, and %q, %v, %v is saved", b, left, err)
	}
	// A person sets an address, hides a file of the image, and adds a file that is not kept.
	dir := filepath.Join(first, networkDir)
	put(t, first, networkDir+"/50-lan.network", string(own("").Content), 0o644)
	put(t, first, networkDir+"/60-wg.netdev", "[NetDev]\nName=wg0\nKind=wireguard\n\n[WireGuard]\nPrivateKey=abc\n", 0o640)
	put(t, first, networkDir+"/50-lan.network.d/x.conf", "[Network]\nDHCP=no\n", 0o644)
	if err := errors.Join(os.Symlink("/dev/null", filepath.Join(dir, "73-usb.link")), os.Symlink("/etc/shadow", filepath.Join(dir, "99.network"))); err != nil {
		t.Fatal(err)
	}
	saved, left, err := SaveNetwork(first, confDir)
	if err != nil || saved == nil || len(left) != 3 {
		t.Fatalf("saved %d bytes, left %v, %v", len(saved), left, err)
	}
	if again, _, _ := SaveNetwork(first, confDir); !bytes.Equal(again, saved) {
		t.Error("saving it again gives other bytes")
	}

	for range 2 {
		next := image(t)
		put(t, next, networkDir+"/80-image.network", "[Match]\nName=*\n", 0o644)
		c := config()
		if c.Preserved, left, err = UnpackNetwork(saved); err != nil || len(left) > 0 {
			t.Fatalf("%v, %v", left, err)
		}
		if err := Configure(next, log, c); err != nil {
			t.Fatal(err)
		}
		list, err := os.ReadDir(filepath.Join(next, networkDir))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range list {
			names = append(names, e.Name())
		}
		for _, n := range []string{PreservedFlag, "50-lan.network", "73-usb.link"} {
			if !slices.Contains(names, n) {
				t.Errorf("%s is missing in %q", n, names)
			}
		}
		for _, n := range []string{"80-image.network", "60-wg.netdev", "99.network"} {
			if slices.Contains(names, n) {
				t.Errorf("%s is in %q", n, names)
			}
		}
		if got := get(t, next, networkDir+"/50-lan.network"); got != string(own("").Content) {
			t.Errorf("got %q", got)
		}
		// What was preserved once is the unit's own, and preserved the next time too.
		if again, _, err := SaveNetwork(next, confDir); err != nil || !bytes.Equal(again, saved) {
			t.Errorf("after the restore %d bytes are saved, %v", len(again), err)
		}
	}
	// Without any .network file a system would be unreachable, so there is nothing to preserve.
	os.RemoveAll(dir)
	if b, _, err := SaveNetwork(first, confDir); b != nil || err != nil {
		t.Errorf("an empty directory: %q, %v", b, err)
	}
}

// TestImageMadeFromUnit uses an image that still has the flag and the record of the unit it was made from.
func TestImageMadeFromUnit(t *testing.T) {
	dir := image(t)
	put(t, dir, networkDir+"/80-image.network", "[Match]\nName=*\n", 0o644)
	put(t, dir, networkDir+"/"+PreservedFlag, "", 0o644)
	put(t, dir, "etc/provisioning/network.json", `{"version":1,"preserved":true}`, 0o644)
	if err := Configure(dir, slog.New(slog.DiscardHandler), config()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, networkDir, PreservedFlag)); err == nil {
		t.Error("the flag stayed")
	}
	if b, _, err := SaveNetwork(dir, confDir); b != nil || err != nil {
		t.Errorf("the image's own files are saved: %q, %v", b, err)
	}
}

func TestUnpackNetworkIsDefensive(t *testing.T) {
	good := own("10-a.network")
	pack := func(change func(*tar.Header), files ...File) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, f := range append([]File{good}, files...) {
			h := &tar.Header{Typeflag: tar.TypeReg, Name: f.Name, Size: int64(len(f.Content)), Mode: 0o777}
			if change != nil && f.Name != good.Name {
				change(h)
			}
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			if h.Size > 0 {
				w.Write(f.Content)
			}
		}
		w.Close()
		return b.Bytes()
	}
	text := func(s string) []byte { return []byte(s) }
	for name, c := range map[string]struct {
		archive []byte
		refused int
		bad     bool
	}{
		"good":           {pack(nil, File{"./b.link", text("[Match]\nMACAddress=aa\n[Link]\nAlias=x\n")}, File{"v.netdev", text("[NetDev]\nName=v\nKind=vlan\n[VLAN]\nId=3\n")}, File{"empty.link", nil}), 0, false},
		"flag":           {pack(nil, File{PreservedFlag, nil}), 0, false},
		"not an archive": {text("nonsense nonsense"), 0, true},
		"empty":          {nil, 0, true},
		"cut":            {pack(nil, File{"b.link", text("[Match]\nName=a\n")})[:1100], 0, true},
		"up":             {pack(nil, File{"../b.network", good.Content}), 1, false},
		"absolute":       {pack(nil, File{"/etc/b.network", good.Content}), 1, false},
		"below":          {pack(nil, File{"b.network.d/x.conf", good.Content}), 1, false},
		"other suffix":   {pack(nil, File{"b.service", text("[Service]\nExecStart=/bin/sh\n")}), 1, false},
		"hidden":         {pack(nil, File{".network", good.Content}), 1, false},
		"twice":          {pack(nil, good), 1, false},
		"link":           {pack(func(h *tar.Header) { h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, "/etc/shadow", 0 }, File{"b.network", nil}), 1, false},
		"hard link":      {pack(func(h *tar.Header) { h.Typeflag, h.Linkname, h.Size = tar.TypeLink, "10-a.network", 0 }, File{"b.network", nil}), 1, false},
		"device":         {pack(func(h *tar.Header) { h.Typeflag, h.Size = tar.TypeBlock, 0 }, File{"b.network", nil}), 1, false},
		"large":          {pack(nil, File{"b.network", bytes.Repeat(text("# x\n"), 20000)}), 1, false},
		"NUL":            {pack(nil, File{"b.network", text("[Match]\nName=a\x00\n")}), 1, false},
		"no section":     {pack(nil, File{"b.network", text("Name=a\n")}), 1, false},
		"no match":       {pack(nil, File{"b.network", text("[Network]\nDHCP=yes\n")}), 1, false},
		"empty match":    {pack(nil, File{"b.link", text("[Match]\nName=\n")}), 1, false},
		"no kind":        {pack(nil, File{"b.netdev", text("[NetDev]\nName=v\n")}), 1, false},
		"key":            {pack(nil, File{"b.netdev", text("[NetDev]\nName=v\nKind=wireguard\n[WireGuardPeer]\nPresharedKey=x\n")}), 1, false},
		"key of MACsec":  {pack(nil, File{"b.netdev", text("[NetDev]\nName=v\nKind=macsec\n[MACsecTransmitAssociation]\nKey=x\n")}), 1, false},
		"GRE key":        {pack(nil, File{"b.netdev", text("[NetDev]\nName=v\nKind=gre\n[Tunnel]\nKey=5\n")}), 0, false},
		"too large":      {make([]byte, 2<<20), 0, true},
		"too many": {pack(nil, func() (out []File) {
			for i := range 130 {
				out = append(out, File{"x" + strings.Repeat("a", i%100) + string(rune('a'+i/100)) + ".network", good.Content})
			}
			return out
		}()...), 0, true},
	} {
		files, refused, err := UnpackNetwork(c.archive)
		if (err != nil) != c.bad || len(refused) != c.refused {
			t.Errorf("%s: %d files, refused %v, %v", name, len(files), refused, err)
		}
		if err == nil && (len(files) == 0 || files[0].Name != good.Name) {
			t.Errorf("%s: files %v", name, files)
		}
	}
}

func FuzzUnpackNetwork(f *testing.F) {
	b, err := PackNetwork([]File{own("a.network"), {"b.link", []byte("[Match]\nOriginalName=e\n[Link]\nName=lan0\n")}})
	if err != nil {
		f.Fatal(err)
	}
	good := b
	for _, s := range edit.Scripts() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		b := edit.Tar(good, script)
		files, _, err := UnpackNetwork(b)
		if err != nil {
			return
		}
		for _, f := range files {
			if err := CheckNetworkFile(f); err != nil || strings.ContainsAny(f.Name, "/\x00") {
				t.Errorf("%q passed: %v", f.Name, err)
			}
		}
		if _, err := PackNetwork(files); err != nil && len(b) < 1<<19 {
			t.Error(err)
		}
	})
}
