package lab_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/u-root/u-root/pkg/cpio"

	"gprovision/lab"
	"gprovision/model/layout"
)

// The tests in this file prove the harness alone: a Debian kernel and the tiny program as its init, from a station of a few
// lines. Nothing of the product is in them.

func TestHarnessUEFI(t *testing.T) { testHarness(t, layout.UEFI) }
func TestHarnessBIOS(t *testing.T) { testHarness(t, layout.BIOS) }

func testHarness(t *testing.T, fw layout.Firmware) {
	t.Parallel()
	needLab(t)
	n := network(t)
	plainStation(t, n)
	u := newUnit(t, n, lab.Config{Name: "harness", Firmware: fw, Memory: 768, SMBIOS: lab.SMBIOS{Manufacturer: "GPROV_QEMU", Product: "harness", Serial: "H1"},
		Disks: []lab.Disk{
			{Name: "main", Bus: lab.VirtIO, Size: 64 << 20},
			{Name: "second", Bus: lab.NVMe, Size: 64 << 20, SectorSize: 4096},
			{Name: "late", Bus: lab.VirtIO, Size: 32 << 20, Late: true},
		}})
	start(t, u)
	up := expect(t, u, 4*time.Minute, lab.Msg("tiny system up"))
	t.Logf("up at %s s of the guest's time, disks %s", up.Text("uptime"), up.Text("disks"))
	if got := up.Text("disks"); !strings.Contains(got, "vda") || strings.Contains(got, "vdb") {
		t.Errorf("disks are %s, want vda without vdb", got)
	}
	if err := u.Plug(t.Context(), "late"); err != nil {
		t.Fatal(err)
	}
	// The guest's kernel needs a moment to see it; asking again is cheap.
	for end := time.Now().Add(20 * time.Second); ; {
		if ask(t, u, map[string]string{"do": "read", "path": "/sys/class/block/vdb/size"}).Text("text") == "65536\n" {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the plugged disk does not appear")
		}
	}
	// What the guest has synced survives a power cut, a snapshot and a fork.
	if e := ask(t, u, map[string]string{"do": "write", "path": "/dev/vda", "text": "kept"}); e.Text("error") != "" {
		t.Fatal(e)
	}
	u.Cut()
	if _, err := u.Events.Wait(t.Context(), lab.Msg("never")); !errors.As(err, new(*lab.DownError)) {
		t.Errorf("waiting on a machine without power gives %v", err)
	}
	s, err := u.Snapshot(t.Context(), filepath.Join(u.Dir, "snap"))
	if err != nil {
		t.Fatal(err)
	}
	fork, err := s.Fork(t.Context(), logger(t), n, filepath.Join(u.Dir, "fork"), nil)
	if err != nil {
		t.Fatal(err)
	}
	watched(t, fork)
	start(t, fork, lab.NoReboot())
	expect(t, fork, 4*time.Minute, lab.Msg("tiny system up"))
	if got := ask(t, fork, map[string]string{"do": "read", "path": "/dev/vda"}).Text("text"); !strings.HasPrefix(got, "kept") {
		t.Errorf("the fork's disk begins with %.10q", got)
	}
	if err := fork.Tell(map[string]string{"do": "reboot"}); err != nil {
		t.Fatal(err)
	}
	if err := fork.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

// ask tells the tiny system to do something and waits for its answer.
func ask(t *testing.T, u *lab.Unit, do map[string]string) lab.Event {
	t.Helper()
	if err := u.Tell(do); err != nil {
		t.Fatal(err)
	}
	return expect(t, u, time.Minute, lab.All(lab.Msg("done"), lab.Field("path", do["path"])))
}

// plainStation answers DHCP and serves a kernel and an initramfs that holds the tiny program.
func plainStation(t *testing.T, n *lab.Network) {
	t.Helper()
	kernel, initrd := plainBoot(t)
	script := "#!ipxe\nkernel http://10.77.0.1/kernel initrd=initrd console=ttyS0,115200 panic=-1 quiet\ninitrd http://10.77.0.1/initrd\nboot\n"
	mux := http.NewServeMux()
	for name, b := range map[string][]byte{"/boot.ipxe": []byte(script), "/kernel": kernel, "/initrd": initrd} {
		mux.HandleFunc(name, func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(b))
		})
	}
	web := &http.Server{Handler: mux}
	t.Cleanup(func() { _ = web.Close() })
	err := n.Visit(func() error {
		l, err := net.Listen("tcp", "10.77.0.1:80")
		if err != nil {
			return err
		}
		go web.Serve(l)
		dhcp, err := server4.NewServer(lab.Bridge, nil, answerDHCP)
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = dhcp.Close() })
		go dhcp.Serve()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func answerDHCP(conn net.PacketConn, peer net.Addr, m *dhcpv4.DHCPv4) {
	kind := dhcpv4.MessageTypeOffer
	if m.MessageType() == dhcpv4.MessageTypeRequest {
		kind = dhcpv4.MessageTypeAck
	}
	us := net.IPv4(10, 77, 0, 1)
	r, err := dhcpv4.NewReplyFromRequest(m, dhcpv4.WithMessageType(kind), dhcpv4.WithServerIP(us), dhcpv4.WithYourIP(net.IPv4(10, 77, 0, 50)),
		dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(us)), dhcpv4.WithLeaseTime(3600),
		dhcpv4.WithOption(dhcpv4.OptBootFileName("http://10.77.0.1/boot.ipxe")))
	if err != nil {
		return
	}
	r.BootFileName = "http://10.77.0.1/boot.ipxe"
	_, _ = conn.WriteTo(r.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: 68})
}

// plainBoot is made once for all tests.
var plainBootOnce = sync.OnceValues(makePlainBoot)

func plainBoot(t *testing.T) (kernel, initrd []byte) {
	t.Helper()
	boot, err := plainBootOnce()
	if err != nil {
		t.Fatal(err)
	}
	return boot.kernel, boot.initrd
}

type plainFiles struct{ kernel, initrd []byte }

// makePlainBoot takes a kernel and the few modules out of the Debian root filesystem.
func makePlainBoot() (plainFiles, error) {
	rootfs, err := debianRoot()
	if err != nil {
		return plainFiles{}, err
	}
	dir, err := os.MkdirTemp("", "gprov-plain-")
	if err != nil {
		return plainFiles{}, err
	}
	defer os.RemoveAll(dir)
	init := filepath.Join(dir, "init")
	build := exec.Command("go", "build", "-trimpath", "-o", init, "gprovision/lab/tiny")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return plainFiles{}, fmt.Errorf("build tiny: %w: %s", err, out)
	}
	program, err := os.ReadFile(init)
	if err != nil {
		return plainFiles{}, err
	}
	order := []string{"virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk", "virtio_console",
		"crct10dif_common", "crc-t10dif", "crc64", "crc64-rocksoft", "t10-pi", "nvme-core", "nvme"}
	records := []cpio.Record{cpio.Directory("modules", 0o755), cpio.CharDev("dev/console", 0o600, 5, 1), cpio.StaticFile("init", string(program), 0o755)}
	records = append(records[:1:1], append([]cpio.Record{cpio.Directory("dev", 0o755)}, records[1:]...)...)
	modules, err := lab.ReadModules(rootfs, order...)
	if err != nil {
		return plainFiles{}, err
	}
	for i, m := range modules {
		records = append(records, cpio.StaticFile(fmt.Sprintf("modules/%02d-%s.ko", i, m.Name), string(m.Data), 0o644))
	}
	f, err := os.Open(rootfs)
	if err != nil {
		return plainFiles{}, err
	}
	defer f.Close()
	var out plainFiles
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return plainFiles{}, err
		}
		base := path.Base(h.Name)
		if strings.HasPrefix(base, "vmlinuz-") {
			if out.kernel, err = io.ReadAll(r); err != nil {
				return plainFiles{}, err
			}
		}
	}
	var b bytes.Buffer
	w := cpio.Newc.Writer(&b)
	if err := cpio.WriteRecordsAndDirs(w, records); err != nil {
		return plainFiles{}, err
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return plainFiles{}, err
	}
	out.initrd = b.Bytes()
	return out, nil
}
