package lab_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/u-root/u-root/pkg/cpio"

	"gprovision/hw/bmc"
	"gprovision/lab"
)

// TestIPMI sets up OpenIPMI's controller from inside of a machine, through the kernel's drivers and QEMU's port for such controllers. Then
// ipmitool logs in over its network with the password that was set.
func TestIPMI(t *testing.T) {
	t.Parallel()
	needLab(t)
	for _, p := range []string{"ipmi_sim", "ipmitool"} {
		if _, err := exec.LookPath(p); err != nil {
			skip(t, err.Error())
		}
	}
	dir := t.TempDir()
	kernel, err := ipmiBoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	lan, serial := ipmiPort(t, "udp"), ipmiPort(t, "tcp")
	files := map[string]string{
		"lan.conf": fmt.Sprintf("name \"judge\"\nset_working_mc 0x20\nstartlan 1\naddr 127.0.0.1 %s\npriv_limit admin\n"+
			"allowed_auths_admin none md2 md5 straight\nguid a123456789abcdefa123456789abcdef\nendlan\n"+
			"serial 15 127.0.0.1 %s codec VM\nuser 1 false \"\" \"test\" user 10 none md2 md5 straight\n"+
			"user 2 true \"ADMIN\" \"ADMIN\" admin 10 none md2 md5 straight\n", lan, serial),
		"commands": "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02\nsel_enable 0x20 100 0x0a\nmc_enable 0x20\n" +
			"sel_add 0x20 2 0 0 0 0x65 0x20 0 4 1 0x30 0x6f 0xa1 0 0\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sim := exec.CommandContext(t.Context(), "ipmi_sim", "-n", "-c", dir+"/lan.conf", "-f", dir+"/commands", "-s", dir)
	if err := sim.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = sim.Process.Kill()
		_ = sim.Wait()
	})
	const password = "set.from.inside"
	out, err := exec.CommandContext(t.Context(), "timeout", "240", "qemu-system-x86_64",
		"-M", "q35", "-accel", "tcg", "-cpu", "max", "-m", "512",
		"-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", kernel, "-initrd", dir+"/initrd",
		"-append", "console=ttyS0 quiet panic=-1 bmcpassword="+password,
		"-chardev", "socket,id=bmc,host=127.0.0.1,reconnect=1,port="+serial, "-device", "ipmi-bmc-extern,id=bmc0,chardev=bmc",
		"-device", "isa-ipmi-kcs,bmc=bmc0").CombinedOutput()
	_, line, ok := strings.Cut(string(out), "\ncontroller ")
	if err != nil || !ok {
		t.Fatalf("the machine: %v\n%s", err, out)
	}
	var got struct {
		Device       bmc.Device
		Ports        []bmc.LAN
		User         bmc.User
		Events, Late int
		Err          string
	}
	if err := json.NewDecoder(strings.NewReader(line)).Decode(&got); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got.Err != "" || got.Device.Firmware != "9.08" || len(got.Ports) != 1 || got.User.ID != 3 || got.Events != 1 {
		t.Errorf("the controller is %+v", got)
	}
	if got.Late == 0 {
		t.Error("no command was cut off")
	}
	tool := exec.CommandContext(t.Context(), "ipmitool", "-I", "lanplus", "-C", "3", "-H", "127.0.0.1", "-p", lan, "-U", "operator", "-E",
		"sel", "info")
	tool.Env = append(os.Environ(), "IPMI_PASSWORD="+password)
	if out, err := tool.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("Entries          : 0")) {
		t.Errorf("ipmitool: %v\n%s", err, out)
	}
}

// ipmiPort returns a port of the loopback address that nobody uses.
func ipmiPort(t *testing.T, network string) string {
	t.Helper()
	var a net.Addr
	if network == "udp" {
		c, err := net.ListenPacket(network, "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		a = c.LocalAddr()
	} else {
		l, err := net.Listen(network, "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		a = l.Addr()
	}
	_, port, err := net.SplitHostPort(a.String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// ipmiBoot puts an initramfs with ipmiguest and the drivers into a directory, and the kernel for it, whose path it returns.
func ipmiBoot(dir string) (kernel string, err error) {
	rootfs, err := debianRoot()
	if err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-trimpath", "-o", dir+"/init", "gprovision/lab/ipmiguest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build ipmiguest: %w: %s", err, out)
	}
	program, err := os.ReadFile(dir + "/init")
	if err != nil {
		return "", err
	}
	modules, err := lab.ReadModules(rootfs, "ipmi_msghandler", "ipmi_si", "ipmi_devintf")
	if err != nil {
		return "", err
	}
	records := []cpio.Record{cpio.Directory("dev", 0o755), cpio.CharDev("dev/console", 0o600, 5, 1), cpio.Directory("modules", 0o755),
		cpio.StaticFile("init", string(program), 0o755)}
	for _, m := range modules {
		records = append(records, cpio.StaticFile("modules/"+m.Name+".ko", string(m.Data), 0o644))
	}
	var b bytes.Buffer
	w := cpio.Newc.Writer(&b)
	if err := errors.Join(cpio.WriteRecordsAndDirs(w, records), cpio.WriteTrailer(w)); err != nil {
		return "", err
	}
	if err := os.WriteFile(dir+"/initrd", b.Bytes(), 0o600); err != nil {
		return "", err
	}
	f, err := os.Open(rootfs)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err != nil {
			return "", fmt.Errorf("find the kernel: %w", err)
		}
		if !strings.HasPrefix(path.Base(h.Name), "vmlinuz-") {
			continue
		}
		image, err := io.ReadAll(r)
		if err != nil {
			return "", err
		}
		return dir + "/vmlinuz", os.WriteFile(dir+"/vmlinuz", image, 0o600)
	}
}
