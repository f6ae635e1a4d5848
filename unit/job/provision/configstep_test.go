package provision

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gprovision/factory/api"
	"gprovision/model/fault"
	"gprovision/model/manifest"
	"gprovision/model/policy"
	"gprovision/model/record"
	"gprovision/model/secret"
	"gprovision/model/signature"
	"gprovision/unit/keytest"
	"gprovision/unit/panel"
)

func TestRunCommand(t *testing.T) {
	tests := []struct {
		name string
		c    manifest.Command
		says string // "": it succeeds
	}{
		{"succeeds", manifest.Command{Command: "true"}, ""},
		{"succeeds by its path", manifest.Command{Command: "/bin/true"}, ""},
		{"fails", manifest.Command{Command: "sh -c 'exit 3'"}, "ended with status 3, want 0"},
		{"must fail and does", manifest.Command{Command: "false", ExitStatus: manifest.ESMustFail}, ""},
		{"must fail and does not", manifest.Command{Command: "true", ExitStatus: manifest.ESMustFail}, "want a failure"},
		{"either way, fails", manifest.Command{Command: "false", ExitStatus: manifest.ESDontCare}, ""},
		{"either way, succeeds", manifest.Command{Command: "true", ExitStatus: manifest.ESDontCare}, ""},
		{"no such program, whatever its status", manifest.Command{Command: "gprov-no-such-program", ExitStatus: manifest.ESDontCare}, "not found"},
		{"ended by a signal, whatever its status", manifest.Command{Command: `sh -c 'kill -9 $$'`, ExitStatus: manifest.ESDontCare}, "signal"},
		{"variables", manifest.Command{Command: `test {{.Serial}}+{{.RecoveryDir}} = S1+/mnt/recovery`}, ""},
		{"a value is one word", manifest.Command{Command: `test {{.DLDir}} = "a 'b\" c"`}, ""},
		{"quotes keep a value whole", manifest.Command{Command: `test "{{.Serial}} x" = 'S1 x'`}, ""},
		{"no shell between", manifest.Command{Command: `test $HOME = '$HOME'`}, ""},
		{"unknown variable", manifest.Command{Command: "echo {{.Unknown}}"}, "Unknown"},
		{"unknown variable in the path", manifest.Command{Command: "true", AddPath: "{{.Unknown}}"}, "Unknown"},
		{"unknown variable in the library path", manifest.Command{Command: "true", AddLibPath: "{{.Unknown}}"}, "Unknown"},
		{"unclosed quote", manifest.Command{Command: "echo 'a"}, "split"},
		{"empty", manifest.Command{Command: " "}, "empty"},
		{"empty once filled in", manifest.Command{Command: "{{.OSPass}}"}, "empty"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j, _ := testJob(t, policy.Policy{})
			err := j.runCommand(t.Context(), tt.c, manifest.Variables{Serial: "S1", RecoveryDir: "/mnt/recovery", DLDir: `a 'b" c`}, false)
			if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %q", err, tt.says)
			}
			if strings.Contains(tt.says, "status") && fault.Of(err) != fault.StepFailed {
				t.Errorf("the code is that of %v", fault.Of(err))
			}
		})
	}
}

func TestCommandEnv(t *testing.T) {
	t.Setenv("PATH", "/usr/bin:/bin")
	t.Setenv("LD_LIBRARY_PATH", "/must/not/be/inherited")
	tests := []struct {
		name string
		c    manifest.Command
		want []string
	}{
		{"nothing", manifest.Command{}, nil},
		{"path", manifest.Command{AddPath: "{{.DLDir}}/bin"}, []string{"PATH=/dl/bin:/usr/bin:/bin"}},
		{"libraries", manifest.Command{AddLibPath: "{{.DLDir}}/lib:/x"}, []string{"LD_LIBRARY_PATH=/dl/lib:/x"}},
		{"both", manifest.Command{AddPath: "/a", AddLibPath: "/b"}, []string{"PATH=/a:/usr/bin:/bin", "LD_LIBRARY_PATH=/b"}},
	}
	for _, tt := range tests {
		tt.c.Command = "true"
		filled, err := tt.c.Fill(manifest.Variables{DLDir: "/dl"})
		if got := commandEnv(filled); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
	t.Setenv("PATH", "")
	if got := commandEnv(manifest.Filled{Path: "/a"}); !slices.Equal(got, []string{"PATH=/a"}) {
		t.Errorf("without a path: got %q: a colon at the end means the working directory", got)
	}
}

// TestCommandFindsByAddPath runs a program whose own child is found by AddPath, before the one of the system.
func TestCommandFindsByAddPath(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "false"), []byte("#!/bin/sh\nexit 0\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	j, _ := testJob(t, policy.Policy{})
	for add, fails := range map[string]bool{"": true, "{{.DLDir}}": false} {
		c := manifest.Command{Command: "sh -c 'exec false'", AddPath: add}
		if err := j.runCommand(t.Context(), c, manifest.Variables{DLDir: dir}, false); (err != nil) != fails {
			t.Errorf("AddPath %q: got %v", add, err)
		}
	}
}

// TestSecretsAreNotLogged runs commands that print, misuse and fail with a password, and looks for it in log and errors.
func TestSecretsAreNotLogged(t *testing.T) {
	const password = "hunter2hunter2"
	commands := []manifest.Command{
		{Command: "echo {{.OSPass}}"},
		{Command: `sh -c 'echo "$0" >&2; exit 1' {{.OSPass}}`},
		{Command: "true {{.OSPass}}", ExitStatus: manifest.ESMustFail},
		{Command: "gprov-no-such-program {{.OSPass}}"},
		{Command: "echo '{{.OSPass}}"},
		{Command: `sh -c 'kill -9 $$' {{.OSPass}}`},
		{Command: "echo {{.OSPass.Length}}"},
		{Command: "printenv LD_LIBRARY_PATH", AddLibPath: "{{.OSPass}}"},
	}
	for _, set := range []manifest.Variables{{OSPass: password}, {BiosPass: password}, {IpmiPass: password}} {
		for _, c := range commands {
			for _, name := range []string{".BiosPass", ".IpmiPass"} {
				if set.OSPass == "" && (name == ".BiosPass") == (set.BiosPass != "") {
					c.Command = strings.ReplaceAll(c.Command, ".OSPass", name)
					c.AddLibPath = strings.ReplaceAll(c.AddLibPath, ".OSPass", name)
				}
			}
			j, log := testJob(t, policy.Policy{})
			err := j.runCommand(t.Context(), c, set, true)
			if strings.Contains(log.String(), password) {
				t.Errorf("%s: the log tells the password: %s", c.Command, log)
			}
			if err != nil && strings.Contains(err.Error(), password) {
				t.Errorf("%s: the error tells the password: %v", c.Command, err)
			}
			if strings.HasPrefix(c.Command, "echo {{") && err == nil && !strings.Contains(log.String(), "***") {
				t.Errorf("%s: the log does not have the output: %s", c.Command, log)
			}
			if err == nil && !strings.Contains(log.String(), c.Command) {
				t.Errorf("%s: the log does not have the command as the manifest has it: %s", c.Command, log)
			}
		}
	}
}

// TestStepLimit: a step whose commands hang is ended, and has failed. The end of the whole job is no fault of the step.
func TestStepLimit(t *testing.T) {
	hangs := []manifest.Command{{Command: "true"}, {Command: "sh -c 'sleep 600 & setsid sleep 600 & wait'", ExitStatus: manifest.ESDontCare}}
	j, _ := testJob(t, policy.Policy{})
	err := j.runStep(t.Context(), Step{Name: "flash", Commands: hangs, Limit: 100 * time.Millisecond})
	for _, says := range []string{hangs[1].Command, "within 100ms"} {
		if fault.Of(err) != fault.StepFailed || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want %q", err, says)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err = j.runStep(ctx, Step{Name: "flash", Commands: hangs, Limit: time.Hour})
	if !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "did not end") {
		t.Errorf("the job ends: %v", err)
	}
	m := &manifest.Manifest{LogEndpoint: "h:1", ValidationData: []manifest.Specs{{DevCodeName: "FOX"}}}
	steps := []manifest.Step{{Commands: hangs}, {Commands: hangs, Minutes: 90}}
	m.CustomPlatCfgSteps = []manifest.PlatformSteps{{DevCodeName: "FOX", ConfigSteps: steps}}
	p, err := newPlan(m, manifest.Rules{Platform: "FOX"}, policy.Policy{})
	if err != nil || p.Steps[0].Limit != manifest.DefaultStepLimit || p.Steps[1].Limit != 90*time.Minute {
		t.Errorf("%+v, %v", p.Steps, err)
	}
}

func TestVerbose(t *testing.T) {
	for _, verbose := range []bool{false, true} {
		j, log := testJob(t, policy.Policy{})
		if err := j.runCommand(t.Context(), manifest.Command{Command: "echo {{.Serial}}"}, manifest.Variables{Serial: "S1"}, verbose); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(log.String(), `level=INFO msg="command output" command="echo {{.Serial}}" output="S1\n"`); got != verbose {
			t.Errorf("verbose %t: %s", verbose, log)
		}
	}
}

// testArchive returns a tar of files, compressed as release images are. Their names and contents come in turn.
func testArchive(t *testing.T, files ...string) string {
	t.Helper()
	if _, err := exec.LookPath("xz"); err != nil {
		if os.Getenv("GPROV_NO_SKIP") == "1" {
			t.Fatal("the program xz is missing")
		}
		t.Skip("the program xz is missing")
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		name, content := files[i], files[i+1]
		h := tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content)), Uid: os.Getuid(), Gid: os.Getgid()}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("xz", "--check=sha256", "-c")
	c.Stdin = &b
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestRunSteps runs steps with files: a script, and an archive that is unpacked beside it. Nothing of them stays.
func TestRunSteps(t *testing.T) {
	archive := testArchive(t, "tool/data", "hello")
	out := filepath.Join(t.TempDir(), "out")
	script := "#!/bin/sh\ncat \"$1/tool/data\" >> " + out + "\necho \" $2\" >> " + out + "\n"
	s := serve(t, map[string]string{"/run.sh": script, "/tool.txz": archive})
	file := func(name, content string) manifest.File {
		sum := sha256.Sum256([]byte(content))
		return manifest.File{Src: s.URL + name, Sha256: hex.EncodeToString(sum[:]), Size: int64(len(content))}
	}
	files := []manifest.File{file("/run.sh", script), file("/tool.txz", archive)}
	step := func(name, arg string, when manifest.When, fs ...manifest.File) manifest.Step {
		return manifest.Step{Name: name, When: when, Files: fs, Commands: []manifest.Command{{Command: "{{.DLDir}}/run.sh {{.DLDir}} " + arg}}}
	}
	wrong := files[0]
	wrong.Sha256 = strings.Repeat("00", 32)

	planned := func(steps ...manifest.Step) (Plan, error) {
		return newPlan(&manifest.Manifest{LogEndpoint: "h:1", ValidationData: []manifest.Specs{{DevCodeName: "FOX"}}, CustomPlatCfgSteps: []manifest.PlatformSteps{
			{DevCodeName: "OWL", ConfigSteps: []manifest.Step{{Name: "other platform", Commands: []manifest.Command{{Command: "false"}}}}},
			{DevCodeName: "FOX", ConfigSteps: steps},
		}}, manifest.Rules{Platform: "FOX"}, policy.Policy{})
	}
	newJob := func(steps ...manifest.Step) *provisioning {
		j, _ := testJob(t, policy.Policy{})
		j.Panel = panel.New()
		var err error
		if j.plan, err = planned(steps...); err != nil {
			t.Fatal(err)
		}
		return j
	}
	j := newJob(step("second place", "x", manifest.RunAfterQA, files...), step("one", "1", manifest.RunBeforeQA, files...), step("two", "{{.Serial}}", manifest.RunBeforeQA, files...))
	if err := j.runSteps(t.Context(), manifest.RunBeforeQA); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(out); err != nil || string(b) != "hello 1\nhello S1\n" {
		t.Errorf("got %q, %v", b, err)
	}
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) > 0 {
		t.Errorf("what was fetched stays: %v, %v", left, err)
	}

	// The passwords of the job reach the steps, and only by their templates.
	j = newJob(manifest.Step{Name: "password", When: manifest.RunBeforePWSet, Commands: []manifest.Command{{Command: "test {{.OSPass}}{{.BiosPass}}{{.IpmiPass}} = abc"}}})
	j.passwords = record.Credentials{OS: secret.Secret("a"), BIOS: secret.Secret("b"), IPMI: secret.Secret("c")}
	if err := j.runSteps(t.Context(), manifest.RunBeforePWSet); err != nil {
		t.Error(err)
	}

	// The first step that fails ends the job, by name.
	if err := os.Remove(out); err != nil {
		t.Fatal(err)
	}
	j = newJob(step("wrong file", "1", manifest.RunBeforeQA, wrong), step("two", "2", manifest.RunBeforeQA, files...))
	err := j.runSteps(t.Context(), manifest.RunBeforeQA)
	if fault.Of(err) != fault.DownloadHash || !strings.Contains(err.Error(), `"wrong file"`) {
		t.Errorf("wrong hash: got %v", err)
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("a step ran after one that failed")
	}
	for name, f := range map[string]manifest.File{
		"no hash": {Src: s.URL + "/run.sh"}, "SHA-1 alone": {Src: s.URL + "/run.sh", Sha1: strings.Repeat("ab", 20)},
	} {
		if _, err := planned(step(name, "1", manifest.RunBeforeQA, f)); fault.Of(err) != fault.HashMissing {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := planned(step("no name", "1", manifest.RunBeforeQA, manifest.File{Src: s.URL + "/", Dest: "x", Sha256: strings.Repeat("ab", 32)})); fault.Of(err) != fault.ManifestSyntax {
		t.Errorf("an address without a name: got %v", err)
	}
}

// TestUnsignedSteps: the commands of a manifest run as root, so that nobody gets them run by answering that there is no signature.
func TestUnsignedSteps(t *testing.T) {
	key := keytest.New(t)
	const plain = `{"Files":[{"Src":"a.upd","Sha256":"` + sixtyFour + `"}]}`
	const steps = `{"Files":[{"Src":"a.upd","Sha256":"` + sixtyFour + `"}],"CustomPlatCfgSteps":[{"DevCodeName":"FOX","ConfigSteps":[{"Name":"x","Commands":[{"Command":"true"}]}]}]}`
	sig, err := key.Sign(strings.NewReader(steps), signature.ManifestComment("FOX", "1"))
	if err != nil {
		t.Fatal(err)
	}
	hand := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/plain":
			io.WriteString(w, plain)
		case "/steps", "/signed":
			io.WriteString(w, steps)
		case "/store":
			io.WriteString(w, strings.Replace(plain, "{", `{"StashFiles":[{"Src":"a.txz","Sha256":"`+sixtyFour+`"}],`, 1))
		case "/signed" + signature.Suffix:
			w.Write(sig)
		default:
			http.NotFound(w, r)
		}
	})
	open := httptest.NewServer(hand)
	defer open.Close()
	secure := httptest.NewTLSServer(hand)
	defer secure.Close()
	turned := httptest.NewTLSServer(http.RedirectHandler(open.URL+"/steps", http.StatusFound))
	defer turned.Close()
	stranger, err := api.OpenAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}))
	for _, tc := range []struct {
		what, url string
		keys      bool
		noCA      bool
		otherCA   bool
		want      *fault.Fault
	}{
		{what: "no keys, under the CA", url: secure.URL + "/steps"},
		{what: "no keys, a store, plain", url: open.URL + "/store", want: fault.ManifestUnsigned},
		{what: "keys, a store, no signature", url: secure.URL + "/store", keys: true, want: fault.ManifestUnsigned},
		{what: "no keys, a store, under the CA", url: secure.URL + "/store"},
		{what: "no keys, plain", url: open.URL + "/steps", want: fault.ManifestUnsigned},
		{what: "no keys, no CA", url: open.URL + "/steps", noCA: true, want: fault.ManifestUnsigned},
		{what: "no keys, led away from https", url: turned.URL + "/steps", want: fault.ManifestMissing},
		{what: "no keys, a server that the CA does not know", url: secure.URL + "/steps", otherCA: true, want: fault.ManifestMissing},
		{what: "keys, a server that nobody knows", url: secure.URL + "/signed", keys: true, otherCA: true, want: fault.ManifestMissing},
		{what: "keys, no signature", url: open.URL + "/steps", keys: true, want: fault.ManifestUnsigned},
		{what: "keys, no signature, under the CA", url: secure.URL + "/steps", keys: true, want: fault.ManifestUnsigned},
		{what: "keys, signed", url: open.URL + "/signed", keys: true},
		{what: "keys, no signature, no steps", url: open.URL + "/plain", keys: true},
		{what: "no keys, plain, no steps", url: open.URL + "/plain"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			j, _ := testJob(t, policy.Policy{AllowUnsigned: true, ServerCA: ca})
			if tc.noCA {
				j.Policy.ServerCA = ""
			}
			if tc.otherCA {
				j.Policy.ServerCA = string(stranger.PEM())
			}
			if tc.keys {
				j.Keys = []signature.PublicKey{key.Public()}
				j.Policy.Keys = []string{key.Public().String()}
			}
			j.env.Survey.Args.ManifestURL = tc.url
			if _, err := j.fetchManifest(t.Context()); fault.Of(err) != tc.want {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

const sixtyFour = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
