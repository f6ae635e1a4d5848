package cli

import (
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"gprovision/cli/answer"
	"gprovision/cli/shown"
	"gprovision/model/challenge"
	"gprovision/model/erasure"
	"gprovision/model/ledger"
	"gprovision/model/record"
	"gprovision/model/signature"
)

// EraseCmd are the verbs about erases.
type EraseCmd struct {
	Verify EraseVerifyCmd `cmd:"" help:"Check the certificate of an erase, offline, and say what it proves."`
	Report EraseReportCmd `cmd:"" help:"Draw the certificate of an erase for people."`
	Submit EraseSubmitCmd `cmd:"" help:"Bring a certificate to the server, which vouches for it and enters it into its log."`
	Codes  EraseCodesCmd  `cmd:"" help:"Draw a certificate as QR codes on the screen."`
	Paste  ErasePasteCmd  `cmd:"" help:"Read a certificate from the texts of the QR codes that a unit has shown."`
	Answer EraseAnswerCmd `cmd:"" help:"Answer the challenge of a unit whose erase is not proved with a support key: it goes on."`
	Keys   EraseKeysCmd   `cmd:"" help:"Print the keys by which a server vouches for units and signs its log."`
}

// EraseFiles are a certificate and whom to believe.
type EraseFiles struct {
	File       string   `arg:"" help:"Certificate. FILE.minisig lies beside it; FILE.voucher and FILE.tlog-proof count if they are there."`
	Key        []string `sep:"none" placeholder:"FILE" help:"Keys of servers that vouch for units, one a line. May be repeated."`
	LogKey     []string `sep:"none" placeholder:"FILE" help:"Keys of logs, one a line: one must have the certificate. May be repeated."`
	Witness    []string `sep:"none" placeholder:"FILE" help:"Keys of witnesses who must have cosigned, one a line. May be repeated."`
	Quorum     int      `placeholder:"N" help:"How many of the witnesses it needs. Default: all."`
	Checkpoint string   `placeholder:"FILE" help:"A checkpoint of the log from elsewhere, or a proof that it goes on to one: both must agree."`
}

// EraseVerifyCmd checks a certificate.
type EraseVerifyCmd struct {
	EraseFiles
	JSON bool `name:"json" help:"Print what was found as JSON."`
}

// Help returns the examples of the verb.
func (*EraseVerifyCmd) Help() string {
	return `Nothing is asked over a network. The status is 0 if the data of all main disks is proved to be gone, by a unit that a server of
--key vouches for; with --log-key a log must have the certificate too, with --checkpoint agree with that one, and with --witness be
cosigned by witnesses, who sign nothing that does not go on from all that they have signed before.

Examples:
  gprov erase verify WX-0001.json --key server.vkey
  gprov erase verify WX-0001.json --key server.vkey --log-key log.vkey --checkpoint seen-last-year
  gprov erase verify WX-0001.json --key server.vkey --log-key log.vkey --witness witnesses.txt --quorum 2
  gprov erase verify --json WX-0001.json`
}

// Run says what the certificate proves.
func (e *EraseVerifyCmd) Run(c *Context) error {
	v, holds, err := e.check()
	if err != nil {
		return err
	}
	if e.JSON {
		if err := answer.JSON(c.Stdout, v); err != nil {
			return err
		}
	} else if _, err := io.WriteString(c.Stdout, v.text()); err != nil {
		return err
	}
	return holds
}

// EraseReportCmd draws a certificate.
type EraseReportCmd struct {
	EraseFiles
	HTML bool `name:"html" help:"Print a page for a browser, which can also print it on paper."`
	PDF  bool `name:"pdf" help:"Print a PDF document."`
}

// Help returns the examples of the verb.
func (*EraseReportCmd) Help() string {
	return `What does not hold is not drawn. What nobody vouches for, and what is not proved, is drawn and says so.

Examples:
  gprov erase report WX-0001.json --html --key server.vkey > WX-0001.html
  gprov erase report WX-0001.json --pdf --key server.vkey --log-key log.vkey > WX-0001.pdf`
}

// Run prints the page or the document.
func (e *EraseReportCmd) Run(c *Context) error {
	if e.HTML == e.PDF {
		return &UsageError{errors.New("say how to draw it: --html or --pdf")}
	}
	if e.PDF && c.Terminal {
		return &UsageError{errors.New("a PDF is not for a terminal: write it to a file with > FILE")}
	}
	v, _, err := e.check()
	if err != nil {
		return err
	}
	if e.PDF {
		return v.pdf(shown.Raw(c.Stdout))
	}
	t, err := template.New("report").Parse(erasePage)
	if err != nil {
		return fmt.Errorf("draw certificate: %w", err)
	}
	if err := t.Execute(c.Stdout, v); err != nil {
		return fmt.Errorf("draw certificate: %w", err)
	}
	return nil
}

//go:embed erase.html
var erasePage string

// check reads and checks all files. The second error says why the certificate is genuine and does not prove what was asked.
func (e *EraseFiles) check() (v eraseView, holds, err error) {
	if e.Checkpoint != "" && len(e.LogKey) == 0 {
		return v, nil, &UsageError{errors.New("--checkpoint needs --log-key: without it nothing is known of the log")}
	}
	if len(e.Witness) > 0 && len(e.LogKey) == 0 {
		return v, nil, &UsageError{errors.New("--witness needs --log-key: without it nothing is known of the log")}
	}
	var files erasure.Files
	for _, f := range []struct {
		name  string
		max   int
		must  bool
		value *[]byte
	}{
		{e.File, erasure.MaxCertificate, true, &files.Certificate},
		{e.File + signature.Suffix, signature.MaxSize, true, &files.Signature},
		{e.File + erasure.VoucherSuffix, erasure.MaxVoucher, false, &files.Voucher},
		{e.File + erasure.ProofSuffix, ledger.MaxProof, false, &files.Proof},
		{e.Checkpoint, ledger.MaxProof, e.Checkpoint != "", &files.Checkpoint},
	} {
		if *f.value, err = readUpTo(f.name, f.max); err != nil && (f.must || !errors.Is(err, fs.ErrNotExist)) {
			return v, nil, fmt.Errorf("read certificate: %w", err)
		}
	}
	var keys erasure.Keys
	if keys.Servers, err = readVerifiers(e.Key); err != nil {
		return v, nil, err
	}
	if keys.Logs, err = readVerifiers(e.LogKey); err != nil {
		return v, nil, err
	}
	if keys.Witnesses, err = readWitnesses(e.Witness); err != nil {
		return v, nil, err
	}
	quorum := e.Quorum
	if quorum == 0 {
		quorum = len(keys.Witnesses)
	}
	if quorum < 0 || quorum > len(keys.Witnesses) {
		return v, nil, &UsageError{fmt.Errorf("--quorum %d of %d witnesses: give their keys with --witness", quorum, len(keys.Witnesses))}
	}
	checked, err := erasure.Verify(files, keys)
	if err != nil {
		return v, nil, fmt.Errorf("%s: %w", e.File, err)
	}
	holds = checked.Holds(len(e.LogKey) > 0, e.Checkpoint != "", quorum)
	v = newEraseView(checked, holds)
	v.Digest = challenge.Digest(files.Certificate)
	return v, holds, nil
}

// readUpTo reads a file that may have max bytes.
func readUpTo(name string, max int) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(max)+1))
	if err != nil {
		return nil, err
	}
	if len(b) > max {
		return nil, fmt.Errorf("%s has more than %d bytes", name, max)
	}
	return b, nil
}

// readVerifiers reads files of keys in the form NAME+HASH+KEY, one a line.
func readVerifiers(names []string) ([]note.Verifier, error) {
	return readKeys(names, note.NewVerifier, "each line is a key as a server prints it: NAME+HASH+KEY")
}

// readWitnesses reads files of witnesses: a key each line, and perhaps a blank and its URL, which is not asked.
func readWitnesses(names []string) ([]*ledger.Witness, error) {
	return readKeys(names, func(line string) (*ledger.Witness, error) {
		key, _, _ := strings.Cut(line, " ")
		return ledger.ParseWitness(key)
	}, "each line is the key of a witness as its operator publishes it: NAME+HASH+KEY")
}

// readKeys reads files of keys, one a line.
func readKeys[K any](names []string, parse func(string) (K, error), hint string) ([]K, error) {
	var out []K
	for _, name := range names {
		b, err := readUpTo(name, signature.MaxSize)
		if err != nil {
			return nil, fmt.Errorf("read keys: %w", err)
		}
		for line := range strings.Lines(string(b)) {
			if line = strings.TrimSpace(line); line == "" {
				continue
			}
			k, err := parse(line)
			if err != nil {
				return nil, &HintError{fmt.Errorf("read keys: %s: %w", name, err), hint}
			}
			out = append(out, k)
		}
	}
	return out, nil
}

// eraseView is what is said of a certificate, as JSON, in plain words and as a page.
type eraseView struct {
	Unit        string          `json:"unit"`
	Platform    string          `json:"platform"`
	Run         string          `json:"run"`
	Digest      string          `json:"digest"` // as units show it
	Started     time.Time       `json:"started"`
	Ended       time.Time       `json:"ended"`
	Clock       erasure.Clock   `json:"clock"`
	Require     erasure.Level   `json:"require"`
	Outcome     erasure.Outcome `json:"outcome"`
	Level       erasure.Level   `json:"level"`
	Recovery    *erasure.Result `json:"recovery,omitempty"`
	Drives      []eraseDrive    `json:"drives"`
	Volume      *eraseVolume    `json:"volume,omitempty"`
	Parts       []erasure.Part  `json:"parts,omitempty"`
	NotReached  []string        `json:"notReached,omitempty"`
	Kept        []string        `json:"kept,omitempty"`
	Software    string          `json:"software"`
	Key         string          `json:"key"` // the fingerprint
	VouchedBy   string          `json:"vouchedBy"`
	NotVouched  string          `json:"notVouched,omitempty"`
	LoggedAs    string          `json:"loggedAs"`
	NotLogged   string          `json:"notLogged,omitempty"`
	Cosigned    []eraseWitness  `json:"cosigned,omitempty"`
	Compared    bool            `json:"compared"`
	NotCompared string          `json:"notCompared,omitempty"`
	Holds       bool            `json:"holds"`
	Why         string          `json:"why,omitempty"` // it does not hold
}

// eraseDrive is what is said of one drive.
type eraseDrive struct {
	Name       string               `json:"name"`
	Role       erasure.Role         `json:"role"`
	Bus        string               `json:"bus"`
	Model      string               `json:"model"`
	Serial     string               `json:"serial"`
	Firmware   string               `json:"firmware"`
	Bytes      erasure.Count        `json:"bytes"`
	Outcome    erasure.Outcome      `json:"outcome"`
	Level      erasure.Level        `json:"level"`
	Method     erasure.Method       `json:"method"`
	Reasons    []erasure.Reason     `json:"reasons,omitempty"`
	Sentences  []string             `json:"sentences,omitempty"` // what the reasons mean
	Samples    erasure.Count        `json:"samples"`             // that say that the data is gone
	Blocks     erasure.Count        `json:"blocks"`
	Read       erasure.Count        `json:"read"` // of them, after the erase
	Missed     []eraseMissed        `json:"missed"`
	Commands   []erasure.Command    `json:"commands,omitempty"`
	Unwritten  []erasure.Range      `json:"unwritten,omitempty"`
	NotReached []string             `json:"notReached,omitempty"`
	Places     erasure.Places       `json:"places"`
	Capability []erasure.Capability `json:"capabilities,omitempty"`
}

// eraseVolume is what is said of the recovery volume.
type eraseVolume struct {
	erasure.Volume
	Sentences []string `json:"sentences,omitempty"` // what the reasons mean
}

// Space says how its free space was filled.
func (v eraseVolume) Space() string {
	cache := "past the page cache"
	if !v.Uncached {
		cache = "perhaps from the page cache"
	}
	return fmt.Sprintf("%d files unlinked. Of %d bytes of free space %d were filled, %d read back as they were written (%s), %d as something "+
		"else; %d were left, and %d discarded afterwards.", v.Unlinked, v.Free, v.Filled, v.ReadBack, cache, v.Different, v.Left, v.Discarded)
}

// eraseWitness is a witness that has cosigned the log.
type eraseWitness struct {
	Name string    `json:"name"`
	Time time.Time `json:"time"`
}

// eraseMissed says how likely it is that samples miss what is left.
type eraseMissed struct {
	Left   string `json:"left"`   // the part of the drive that still holds data
	Chance string `json:"chance"` // at most
}

func newEraseView(c erasure.Checked, holds error) eraseView {
	cert := c.Certificate
	v := eraseView{
		Unit: cert.Unit, Platform: cert.Platform, Run: cert.Run, Started: cert.Started, Ended: cert.Ended, Clock: cert.Clock,
		Require: cert.Require, Outcome: cert.Outcome, Level: cert.Level, Recovery: cert.Recovery,
		Parts: cert.Parts, NotReached: cert.NotReached, Kept: cert.Kept, Key: record.Fingerprint(cert.Key),
		NotVouched: c.NotVouched, NotLogged: c.NotLogged, Compared: c.Compared, NotCompared: c.NotCompared, Holds: holds == nil,
	}
	if holds != nil {
		v.Why = holds.Error()
	}
	v.Software = fmt.Sprintf("gprovision %s, kernel %s", cert.Software.Gprovision, cert.Software.Kernel)
	if cert.Software.Artifact != "" {
		v.Software += ", boot artifact with SHA-256 " + cert.Software.Artifact
	}
	if c.Voucher != nil {
		v.VouchedBy = fmt.Sprintf("%s, since %s", c.Voucher.By, c.Voucher.Since.Format(time.DateTime))
	}
	if l := c.Logged; l != nil {
		v.LoggedAs = fmt.Sprintf("record %d of %d of %s", c.Index, l.Size, l.Origin)
		for _, w := range c.Cosigned {
			v.Cosigned = append(v.Cosigned, eraseWitness{w.Witness, w.Time})
			v.LoggedAs += fmt.Sprintf(", cosigned by %s at %s", w.Witness, w.Time.Format(time.DateTime))
		}
		others := slices.DeleteFunc(slices.Clone(l.Others), func(name string) bool {
			return slices.ContainsFunc(c.Cosigned, func(w ledger.Cosignature) bool { return w.Witness == name })
		})
		if len(others) > 0 {
			v.LoggedAs += ", with signatures that were not checked by " + strings.Join(others, ", ")
		}
	}
	for _, d := range cert.Drives {
		v.Drives = append(v.Drives, newEraseDrive(d))
	}
	if cert.Volume != nil {
		v.Volume = &eraseVolume{*cert.Volume, sentences(cert.Volume.Reasons)}
	}
	return v
}

// sentences says what reasons mean.
func sentences(reasons []erasure.Reason) (out []string) {
	for _, r := range reasons {
		out = append(out, r.Sentence())
	}
	return out
}

func newEraseDrive(d erasure.Drive) eraseDrive {
	places := d.Evidence.Samples.Random
	out := eraseDrive{
		Name: d.Name, Role: d.Role, Bus: d.Bus, Model: d.Model, Serial: d.Serial, Firmware: d.Firmware, Bytes: d.Bytes,
		Outcome: d.Outcome, Level: d.Level, Method: d.Evidence.Method, Reasons: d.Reasons, Sentences: sentences(d.Reasons),
		Samples:  places.Changed + places.Constant,
		Commands: d.Commands, Unwritten: d.Unwritten, NotReached: d.NotReached, Places: places, Capability: d.Capabilities,
		Blocks: d.Evidence.Samples.Blocks, Read: d.Evidence.Samples.Read,
	}
	for _, left := range []float64{0.0001, 0.001, 0.01} {
		chance := erasure.MissChance(left, out.Samples) * 100
		out.Missed = append(out.Missed, eraseMissed{
			strconv.FormatFloat(left*100, 'g', 3, 64) + " %", strconv.FormatFloat(chance, 'g', 3, 64) + " %",
		})
	}
	return out
}

// Said is an outcome in plain words.
func (v eraseView) Said(o erasure.Outcome, l erasure.Level) string {
	switch o {
	case erasure.Proved:
		return fmt.Sprintf("proved: the data is gone, at level %s", l)
	case erasure.Weaker:
		return fmt.Sprintf("proved by a weaker method only, at level %s", l)
	case erasure.Failed:
		return "failed: data is left, or nothing has erased it"
	}
	return "unknown: nobody can say whether the data is gone"
}

// Beside is what belongs to the headline beside the main disks.
func (v eraseView) Beside() string {
	if v.Recovery == nil {
		return "Of the recovery volume nothing is said."
	}
	return "Recovery volume: " + v.Said(v.Recovery.Outcome, v.Recovery.Level) + "."
}

// Times says when it was, and who says so.
func (v eraseView) Times() string {
	by := map[erasure.Clock]string{
		erasure.ClockServer: "by a clock that the factory server had set", erasure.ClockRTC: "by the unit's own clock, whoever set it",
		erasure.ClockNone: "by no clock: only the length is right",
	}[v.Clock]
	return fmt.Sprintf("from %s to %s UTC, %s", v.Started.Format(time.DateTime), v.Ended.Format(time.DateTime), by)
}

// text is the answer in plain words. What others wrote is in it as one line each.
func (v eraseView) text() string {
	var b strings.Builder
	say := func(format string, args ...any) {
		for i, a := range args {
			args[i] = shown.Line(fmt.Sprint(a))
		}
		fmt.Fprintf(&b, format+"\n", args...)
	}
	say("erase of unit %s (%s), run %s", v.Unit, v.Platform, v.Run)
	say("digest of the certificate, as units show it: %s", v.Digest)
	v.vouch(say)
	say("it says: %s, by %s", v.Times(), v.Software)
	if v.Require != "" {
		say("the policy demands level %s", v.Require)
	}
	say("main disks: %s", v.Said(v.Outcome, v.Level))
	if v.Recovery != nil {
		say("recovery volume: %s", v.Said(v.Recovery.Outcome, v.Recovery.Level))
	}
	for _, p := range v.Parts {
		if p.State != erasure.Cleared {
			say("%s: %s", p.Name, p.State.Sentence())
		}
	}
	for _, d := range v.Drives {
		say("\n%s (%s, %s): %s, serial %s, firmware %s, %s bytes", d.Name, d.Role, d.Bus, d.Model, d.Serial, d.Firmware, uint64(d.Bytes))
		say("  %s; method: %s", v.Said(d.Outcome, d.Level), d.Method)
		for _, s := range d.Sentences {
			say("  - %s", s)
		}
		say("  %s samples say that the data is gone, %s say that it is not, %s could not be read", uint64(d.Samples), uint64(d.Places.Unchanged),
			uint64(d.Places.Unreadable))
		say("  %s of %s blocks were read afterwards", uint64(d.Read), uint64(d.Blocks))
		for _, m := range d.Missed {
			say("  if %s of it were left, they would miss that with a chance of at most %s", m.Left, m.Chance)
		}
		for _, r := range d.Unwritten {
			say("  not written: %s blocks from %s", uint64(r.Count), uint64(r.First))
		}
		for _, s := range d.NotReached {
			say("  not reached: %s", s)
		}
	}
	if x := v.Volume; x != nil {
		say("\n%s (recovery volume, %s): %s, serial %s, %s bytes", x.Name, x.Filesystem, x.Model, x.Serial, uint64(x.Bytes))
		say("  %s", v.Said(x.Outcome, x.Level))
		for _, s := range x.Sentences {
			say("  - %s", s)
		}
		say("  %s", x.Space())
		for _, s := range x.NotReached {
			say("  not reached: %s", s)
		}
	}
	v.parts(say)
	b.WriteByte('\n')
	for _, s := range v.NotReached {
		say("not reached: %s", s)
	}
	for _, s := range v.Kept {
		say("stays on the unit: %s", s)
	}
	if v.Holds {
		say("it holds: the data of all main disks is proved to be gone. %s", v.Beside())
	}
	return b.String()
}

// parts says what became of what is no drive.
func (v eraseView) parts(say func(string, ...any)) {
	for _, p := range v.Parts {
		say("\n%s: %s", p.Name, p.State.Sentence())
		for _, s := range p.Seen {
			say("  %s: %s", s.What, s.Found)
		}
		for _, c := range p.Commands {
			say("  %s: %s", c.Name, c.Status)
		}
	}
}

// vouch says who vouches for what is said.
func (v eraseView) vouch(say func(string, ...any)) {
	if v.VouchedBy != "" {
		say("signed by the unit's key %s; vouched for by %s", v.Key, v.VouchedBy)
	} else {
		say("signed by a unit nobody vouches for, with the key %s: %s", v.Key, v.NotVouched)
	}
	if v.LoggedAs != "" {
		say("logged as %s", v.LoggedAs)
	} else {
		say("not yet logged: %s", v.NotLogged)
	}
	if v.Compared {
		say("the log agrees with the other checkpoint")
	}
}
