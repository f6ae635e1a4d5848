package cli

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/alecthomas/kong"

	"gprovision/cli/shown"
	"gprovision/forge/boot"
	"gprovision/forge/image"
	"gprovision/model/bootimage"
	"gprovision/model/source"
	"gprovision/site"
)

// evil changes a terminal's title, clears it, types a command into it, and begins a line that looks like one of ours.
const evil = "\x1b]0;x\a\x1b[2J\u009b2J\x1b[5n\r\u202eevil\nFORGED good"

// harmless fails unless text can be shown on a terminal: nothing that drives it, and no line that others began.
func harmless(t *testing.T, what, text string) {
	t.Helper()
	for _, r := range text {
		if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
			t.Errorf("%s prints %q:\n%q", what, r, text)
			return
		}
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "FORGED") {
			t.Errorf("%s lets a file begin a line:\n%s", what, text)
			return
		}
	}
}

// evilFiles makes files of the kinds that verbs read, all with texts of somebody who wants to be on the reader's terminal.
func evilFiles(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	var files []string
	put := func(name string, data []byte) {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, data, 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, p)
	}
	in, err := json.Marshal(evil)
	if err != nil {
		t.Fatal(err)
	}
	asJSON := func(format string) []byte { return []byte(strings.ReplaceAll(format, "EVIL", string(in))) }
	put("text", []byte(evil))
	put("key", []byte("untrusted comment: "+evil+"\n"+evil+"\n"))
	put("manifest.json", asJSON(`{"Files":[{"Src":EVIL,"Dest":EVIL,"Sha1":EVIL}],"LogEndpoint":EVIL,"CredentialEndpoint":EVIL,"Stages":{EVIL:1},EVIL:1,EVIL:2,"CustomPlatSteps":[{"StepName":EVIL,"When":EVIL,"Commands":[EVIL]}],"ValidationData":[{"DevCodeName":EVIL,"RAM":EVIL}]}`))
	put("appliance.json", asJSON(`{"Version":1,EVIL:1,EVIL:2,"Variants":[{"Familyname":EVIL,"DevCodeName":EVIL,"DmiProdModelRegex":EVIL,"SerNumField":EVIL,"Lcd":EVIL,"BootArgs":EVIL,"DataPartition":{"Label":EVIL,"Mount":EVIL}}]}`))
	put("policy.json", asJSON(`{"version":1,"keys":[EVIL],"bootArgs":EVIL,"panels":[EVIL],"fetchHosts":[EVIL],EVIL:1}`))
	put("recipe.yaml", asJSON("format: 1\nbase: EVIL\npackages: [EVIL]\nEVIL: 1\n"))
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	meta := asJSON(`{"Version":1,"Name":EVIL,"Source":EVIL,"BinVer":EVIL,"BinTime":EVIL,"ImportJob":EVIL,"ImgJob":EVIL,"Stream":EVIL}`)
	for _, h := range []tar.Header{{Name: "etc/provisioning/imgmeta.json", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(meta))}, {Name: evil, Typeflag: tar.TypeLink, Linkname: evil, Mode: 0o644}} {
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := tw.Write(meta); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	put("root.tar", b.Bytes())
	imageNeeds(t, "xz")
	xz := exec.Command("xz", "--check=sha256", "-c")
	xz.Stdin = &b
	packed, err := xz.Output()
	if err != nil {
		t.Fatal(err)
	}
	put("WIDGET.LNX.SHINY.2026-11-22.0001.upd", packed)
	put("WIDGET.LNX.SHINY.2026-11-22.0001.upd.minisig", []byte("untrusted comment: x\n"+evil+"\ntrusted comment: "+evil+"\n"+evil+"\n"))
	put("norm_boot", evilArtifact(t, asJSON(`{"build":1,"kernel":EVIL,"gprovision":EVIL,"tools":[{"name":EVIL,"path":EVIL,"package":EVIL,"version":EVIL,"sha256":EVIL}]}`)))
	odd := filepath.Join(dir, "odd")
	if err := os.Mkdir(odd, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{evil + ".upd", "WIDGET.LNX.SHINY." + evil + ".upd", evil} {
		if err := os.WriteFile(filepath.Join(odd, n), []byte(evil), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return append(files, odd)
}

// evilArtifact returns a bzImage with an initramfs inside, whose banner and build.json are those of somebody evil.
func evilArtifact(t *testing.T, info []byte) []byte {
	t.Helper()
	var tree bootimage.Tree
	if err := tree.Add(bootimage.File{Name: "etc/gprovision/build.json", Mode: 0o644, Data: info}); err != nil {
		t.Fatal(err)
	}
	var initrd, payload bytes.Buffer
	if err := tree.Write(&initrd, time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(&payload)
	if _, err := z.Write(initrd.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	k := make([]byte, 2048+payload.Len())
	k[0x1f1], k[0x211] = 3, 1
	binary.LittleEndian.PutUint16(k[0x1fe:], 0xaa55)
	copy(k[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(k[0x206:], 0x020f)
	binary.LittleEndian.PutUint16(k[0x20e:], 0x100)
	copy(k[0x300:], "6.1.0"+strings.ReplaceAll(evil, "\n", "")+" (x@y) #1 SMP\x00")
	binary.LittleEndian.PutUint32(k[0x248:], 0)
	binary.LittleEndian.PutUint32(k[0x24c:], uint32(payload.Len()))
	copy(k[2048:], payload.Bytes())
	return k
}

// TestNoVerbDrivesTheTerminal gives files of somebody evil to every verb, in the place of each file that it takes.
func TestNoVerbDrivesTheTerminal(t *testing.T) {
	t.Setenv("BUILD_NUMBER", "1")
	t.Setenv("SOURCE_DATE_EPOCH", "1795305600")
	files := evilFiles(t)
	evilServer := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(w, `{"error":%q,"code":%q}`, evil, evil)
	}))
	defer evilServer.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: evilServer.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	// These have no file or answer of others to show, or are a console or a display themselves.
	passed := map[string]bool{"demo": true, "vm": true, "lcd demo": true, "lcd simulate": true, "lcd attach": true, "completion": true, "platform capture": true}
	k, err := parser(&Context{Stdout: new(bytes.Buffer), Stderr: new(bytes.Buffer)}, &Commands{})
	if err != nil {
		t.Fatal(err)
	}
	runs := 0
	try := func(what string, args ...string) {
		t.Helper()
		runs++
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		var out, errs bytes.Buffer
		run(&Context{Context: ctx, Stdout: &out, Stderr: &errs, Site: site.Stock(), Version: "r42"}, args)
		if ctx.Err() != nil {
			t.Errorf("%v does not end", args)
		}
		harmless(t, "the standard output of "+what, out.String())
		harmless(t, "the standard error of "+what, errs.String())
	}
	for _, n := range k.Model.Leaves(true) {
		path := strings.TrimPrefix(n.Path(), "gprov ")
		if passed[path] {
			continue
		}
		for _, file := range files {
			value := func(v *kong.Value, name string) string {
				switch name {
				case "out", "into", "data", "cache":
					return filepath.Join(t.TempDir(), "new")
				case "name":
					return "WIDGET.LNX.SHINY.2026-11-22.0001.upd"
				case "server":
					return evilServer.URL
				case "ca":
					return ca
				}
				if v.Target.Kind() == reflect.Int || v.Target.Kind() == reflect.Uint64 || v.Target.Kind() == reflect.Pointer {
					return "1"
				}
				return file
			}
			args := strings.Fields(path)
			var optional []*kong.Flag
			for _, f := range n.Flags {
				switch {
				case f.Required:
					args = append(args, "--"+f.Name+"="+value(f.Value, f.Name))
				case f.Name == "interface": // no file, and a server would start
				case f.Name != "help" && f.Name != "version" && f.Name != "json" && f.Target.Kind() != reflect.Bool && f.Target.Kind() != reflect.Int:
					optional = append(optional, f)
				}
			}
			for _, p := range n.Positional {
				args = append(args, value(p, p.Name))
			}
			try(path+" of "+filepath.Base(file), args...)
			if hasFlag(n, "json") {
				try(path+" --json of "+filepath.Base(file), append(args, "--json")...)
			}
			if testing.Short() {
				optional = nil
			}
			for _, f := range optional {
				with := append(args, "--"+f.Name+"="+value(f.Value, f.Name))
				try(fmt.Sprintf("%s --%s of %s", path, f.Name, filepath.Base(file)), with...)
			}
			if hasFlag(n, "server") {
				try(path+" --server", append(args, "--server="+evilServer.URL, "--ca="+ca, "--password-file="+file)...)
			}
		}
	}
	t.Logf("%d runs", runs)
	if runs < 300 {
		t.Errorf("only %d runs", runs)
	}
}

func hasFlag(n *kong.Node, name string) bool {
	for _, f := range n.Flags {
		if f.Name == name {
			return true
		}
	}
	return false
}

// TestNoFieldDrivesTheTerminal fills everything that printers get with evil texts, also what no file above leads to.
func TestNoFieldDrivesTheTerminal(t *testing.T) {
	var in boot.Inspection
	var rep image.Report
	var listed image.Listed
	var problem source.Problem
	var erase eraseView
	for _, v := range []any{&in, &rep, &listed, &problem, &erase} {
		poison(reflect.ValueOf(v).Elem(), 0)
	}
	in.GRUB.Boot, in.Platforms = nil, nil
	var out bytes.Buffer
	c := &Context{Stdout: shown.New(&out), Stderr: shown.New(&out)}
	for what, f := range map[string]func() error{
		"boot inspect":   func() error { return printInspection(c, "norm_boot", in) },
		"image inspect":  func() error { imageTable(c.Stdout, reportRows(rep)); return nil },
		"image list":     func() error { return (&ImageListCmd{}).print(c, []image.Listed{listed}) },
		"problems":       func() error { printProblems(c.Stdout, "file", []source.Problem{problem}); return nil },
		"erase verify":   func() error { _, err := io.WriteString(c.Stdout, erase.text()); return err },
		"error and hint": func() error { report(c.Stderr, &HintError{fmt.Errorf("%s", evil), "x"}); return nil },
		"not there":      func() error { report(c.Stderr, &fs.PathError{Op: "open", Path: evil, Err: fs.ErrNotExist}); return nil },
	} {
		out.Reset()
		if err := f(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if !strings.Contains(out.String(), "evil") {
			t.Errorf("%s shows nothing of it: %s", what, out.String())
		}
		harmless(t, what, out.String())
	}
}

// poison sets every text in v, and makes what is nil or empty.
func poison(v reflect.Value, depth int) {
	if depth > 8 || !v.CanSet() {
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(evil)
	case reflect.Struct:
		for i := range v.NumField() {
			poison(v.Field(i), depth+1)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		poison(v.Elem(), depth+1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		poison(v.Index(0), depth+1)
	}
}
