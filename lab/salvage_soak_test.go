//go:build soak

package lab_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"gprovision/lab"
	"gprovision/model/layout"
	"gprovision/unit/state"
)

// TestSoakNetworkSalvaged restores units whose old system, or recovery volume, has network files that are refused: what may be kept is kept,
// the reason for the rest is in the log, and no restore fails of it.
func TestSoakNetworkSalvaged(t *testing.T) {
	t.Parallel()
	needLoop(t)
	l := needLife(t)
	f, err := l.finished[layout.BIOS]()
	if err != nil {
		t.Fatal(err)
	}
	salvaged(t, newCuts(t, workDir(t, 2<<30), f.snapshot, f.product.Path(lab.BootFile), f.product.Path(l.images[1])))
}

const (
	networkDir = "etc/systemd/network"
	ownNetwork = "[Match]\nName=eth0\n\n[Network]\nAddress=192.0.2.2/24\n"
	oldNetwork = "[Match]\nName=eth0\n\n[Network]\nAddress=192.0.2.1/24\n"
	wireKey    = "aGVyZSBpcyBhIHNlY3JldCBvZiAzMiBieXRlcyBhbGw="
)

func salvaged(t *testing.T, c *cuts) {
	// The files of the image, which a unit without its own has.
	const image = "80-dhcp.network"
	files := func(t *testing.T, dir string, content map[string]string) {
		for name, text := range content {
			if err := os.WriteFile(filepath.Join(dir, networkDir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	archive := func(t *testing.T, entries ...tar.Header) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range entries {
			text := h.Linkname // of a file it is the content
			if h.Typeflag == tar.TypeReg {
				h.Linkname, h.Size = "", int64(len(text))
			}
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			if h.Typeflag == tar.TypeReg {
				if _, err := w.Write([]byte(text)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	for _, tc := range []struct {
		name string
		// old changes the old system; nil: the main disk is blank.
		old func(t *testing.T, dir string)
		// saved is what lies on the recovery volume.
		saved []byte
		// msg is of the events with what is refused, and refused are words of their reasons.
		msg     string
		refused []string
		// kept are the network files of the restored system; nil: those of the image.
		kept map[string]string
	}{
		{
			name: "old system with files that are refused",
			old: func(t *testing.T, dir string) {
				files(t, dir, map[string]string{
					"10-own.network": ownNetwork,
					"20-wg.netdev":   "[NetDev]\nName=wg0\nKind=wireguard\n\n[WireGuard]\nPrivateKey=" + wireKey + "\n",
					"40-all.network": "[Network]\nDHCP=yes\n",
					"50-bin.link":    "[Match]\nName=\x00\n",
					"60-big.network": "[Match]\nName=eth1\n" + strings.Repeat("# much\n", 10_000),
					"notes.txt":      "nothing of networkd's\n",
				})
				for name, target := range map[string]string{"30-passwd.network": "/etc/shadow", "70-hidden.link": "/dev/null"} {
					if err := os.Symlink(target, filepath.Join(dir, networkDir, name)); err != nil {
						t.Fatal(err)
					}
				}
				if err := os.Mkdir(filepath.Join(dir, networkDir, "10-own.network.d"), 0o755); err != nil {
					t.Fatal(err)
				}
			},
			msg:     "a network file is not kept",
			refused: []string{"is a secret", `"40-all.network": it has no [Match]`, "not plain text", "60-big.network", "30-passwd.network", "10-own.network.d"},
			kept:    map[string]string{"10-own.network": ownNetwork, "70-hidden.link": "", image: "image", ".config-preserved": ""},
		},
		{
			name: "old system with nothing but files that are refused",
			old: func(t *testing.T, dir string) {
				if err := os.Remove(filepath.Join(dir, networkDir, image)); err != nil {
					t.Fatal(err)
				}
				files(t, dir, map[string]string{"20-wg.netdev": "[NetDev]\nName=wg0\nKind=wireguard\n\n[WireGuard]\nPrivateKey=" + wireKey + "\n"})
			},
			msg:     "a network file is not kept",
			refused: []string{"is a secret"},
		},
		{
			name: "old system without a record of its network files",
			old: func(t *testing.T, dir string) {
				files(t, dir, map[string]string{"10-own.network": ownNetwork})
				if err := os.Remove(filepath.Join(dir, "etc/provisioning/network.json")); err != nil {
					t.Fatal(err)
				}
			},
			saved: archive(t, tar.Header{Typeflag: tar.TypeReg, Name: "10-own.network", Linkname: oldNetwork}),
			kept:  map[string]string{"10-own.network": oldNetwork, ".config-preserved": ""},
		},
		{
			name: "hostile archive",
			saved: archive(t,
				tar.Header{Typeflag: tar.TypeReg, Name: "../../../etc/10-up.network", Linkname: ownNetwork},
				tar.Header{Typeflag: tar.TypeSymlink, Name: "20-link.network", Linkname: "/etc/shadow"},
				tar.Header{Typeflag: tar.TypeReg, Name: "10-own.network", Linkname: ownNetwork},
				tar.Header{Typeflag: tar.TypeReg, Name: "10-own.network", Linkname: oldNetwork},
				tar.Header{Typeflag: tar.TypeReg, Name: "30-all.network", Linkname: "[Network]\nDHCP=yes\n"}),
			msg:     "a saved network file is refused",
			refused: []string{"its name", `"20-link.network" is not a regular file`, "twice", "no [Match]"},
			kept:    map[string]string{"10-own.network": ownNetwork, ".config-preserved": ""},
		},
		{
			name:    "archive without a network",
			saved:   archive(t, tar.Header{Typeflag: tar.TypeSymlink, Name: "10-own.network", Linkname: "/etc/shadow"}),
			msg:     "a saved network file is refused",
			refused: []string{"is not a regular file"},
		},
		{name: "no archive at all", saved: bytes.Repeat([]byte("junk"), 1000)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c.begin(t)
			recovery, main := c.unit.disks[0], c.unit.disks[1]
			request(t, recovery)
			var written error
			err := mounted(t, recovery, 0, func(dir string) { written = state.Open(dir).WriteNetwork(tc.saved) })
			if err := errors.Join(err, written); err != nil {
				t.Fatal(err)
			}
			if tc.old == nil {
				run(t, "truncate", "-s", "0", main)
				run(t, "truncate", "-s", "8G", main)
			} else if err := mounted(t, main, 0, func(dir string) { tc.old(t, dir) }); err != nil {
				t.Fatal(err)
			}
			if _, jobs := c.start(t); !slices.Equal(jobs, []string{"restore", "boot"}) {
				t.Errorf("the unit did %v", jobs)
			}
			left := slices.Clone(tc.refused)
			for _, e := range c.said {
				if e.Msg() != tc.msg {
					continue
				}
				i := slices.IndexFunc(left, func(why string) bool { return strings.Contains(e.Text("err"), why) })
				if i < 0 {
					t.Errorf("refused too: %s", e)
					continue
				}
				left = slices.Delete(left, i, i+1)
			}
			if len(left) > 0 {
				t.Errorf("nothing was refused because of %q", left)
			}
			for _, e := range c.said {
				if strings.Contains(e.String(), wireKey) {
					t.Errorf("the key is in the log: %s", e)
				}
			}
			err = mounted(t, main, syscall.MS_RDONLY, func(dir string) {
				got := map[string]string{}
				list, err := os.ReadDir(filepath.Join(dir, networkDir))
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range list {
					b, err := os.ReadFile(filepath.Join(dir, networkDir, e.Name()))
					if err != nil {
						t.Error(err)
					}
					if e.Name() == image {
						b = []byte("image")
					}
					got[e.Name()] = string(b)
				}
				want := tc.kept
				if want == nil {
					want = map[string]string{image: "image"}
				}
				if !maps.Equal(got, want) {
					t.Errorf("the network files are %q, want %q", got, want)
				}
				for _, name := range []string{"etc/10-up.network", networkDir + "/20-wg.netdev"} {
					if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, os.ErrNotExist) {
						t.Errorf("%s: %v", name, err)
					}
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			err = mounted(t, recovery, syscall.MS_RDONLY, func(dir string) {
				if b, err := state.Open(dir).ReadNetwork(); tc.old != nil && (err != nil || bytes.Contains(b, []byte(wireKey))) {
					t.Errorf("what is saved has the key: %t, %v", bytes.Contains(b, []byte(wireKey)), err)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}
