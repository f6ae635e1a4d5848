package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"

	"gprovision/cli/answer"
	"gprovision/forge/stick"
	"gprovision/model/challenge"
)

// StickCmd holds the verbs about recovery sticks.
type StickCmd struct {
	Make StickMakeCmd `cmd:"" help:"Write a recovery stick: it starts a unit, restores it, rebuilds its recovery volume, carries the support bundle away."`
}

// StickMakeCmd is "gprov stick make".
type StickMakeCmd struct {
	Artifact string `required:"" placeholder:"FILE" help:"Boot artifact (norm_boot): the stick does what its policy allows."`
	Image    string `required:"" placeholder:"FILE.upd" help:"Release image, with its signature beside it."`
	Out      string `required:"" placeholder:"FILE|DEVICE" help:"File to write, or a removable or USB disk: everything on that is lost."`
	Size     string `placeholder:"SIZE" help:"Size of the disk in a file, in bytes, or with K, M or G behind it. Default: as small as possible."`
	Yes      bool   `short:"y" help:"Really overwrite the device."`
	JSON     bool   `name:"json" help:"Print the report as JSON."`
}

// Help returns the examples of the verb.
func (*StickMakeCmd) Help() string {
	return `The image must be signed with a key that the artifact's policy trusts. A device is only written if the kernel says that it is removable
or on USB, and that nobody uses it.

Examples:

  gprov stick make --artifact norm_boot --image WIDGET.LNX.SHINY.2026-11-22.0007.upd --out stick.img
  sudo gprov stick make --artifact norm_boot --image WIDGET.LNX.SHINY.2026-11-22.0007.upd --out /dev/sdb --yes`
}

// Run makes the stick and prints a report.
func (s *StickMakeCmd) Run(c *Context) error {
	o := stick.Options{Names: c.Site.Names.Chosen(), Artifact: s.Artifact, Image: s.Image, Out: s.Out, Confirmed: s.Yes, Sys: os.DirFS("/sys")}
	if s.Size != "" {
		n, err := parseSize(s.Size)
		if err != nil {
			return &UsageError{fmt.Errorf("--size: %w", err)}
		}
		o.Size = n
	}
	r, err := stick.Make(c, slog.New(slog.NewTextHandler(c.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})), o)
	var loss *stick.NotConfirmedError
	if errors.As(err, &loss) {
		return &UsageError{&HintError{err, "add --yes if that is meant"}}
	}
	if err != nil {
		return bootHint(err)
	}
	if s.JSON {
		return answer.JSON(c.Stdout, r)
	}
	starts := "UEFI and BIOS"
	if !r.BIOS {
		starts = "UEFI only: the artifact has no boot loader for BIOS"
	}
	build := "none"
	if r.Build != nil {
		build = strconv.FormatUint(*r.Build, 10)
	}
	fmt.Fprintln(c.Stdout, r.Out)
	rows := [][2]string{{"starts", starts}, {"image", r.Image}, {"signed", orElse(r.Signer, "no")}, {"artifact", "build " + build}, {"size", megabytes(r.Bytes)}}
	if r.SHA256 != "" {
		rows = append(rows, [2]string{"sha256", r.SHA256})
	}
	imageTable(c.Stdout, rows)
	return nil
}

// ShellCmd holds the verbs about the recovery shell of units.
type ShellCmd struct {
	Answer ShellAnswerCmd `cmd:"" help:"Answer the challenge of a unit's recovery shell with a support key."`
}

// SupportAnswer is a challenge of a unit, and the support key that answers it.
type SupportAnswer struct {
	Challenge  string `arg:"" help:"What the unit shows, from its serial number on."`
	Key        string `required:"" placeholder:"FILE" help:"Private support key. Its public half is in supportKeys of the policy."`
	Passphrase string `name:"passphrase-file" placeholder:"FILE" help:"File whose first line is the key's passphrase. Default: the environment variable GPROV_SIGNING_PASSPHRASE."`
}

// ShellAnswerCmd is "gprov shell answer".
type ShellAnswerCmd struct{ SupportAnswer }

// Help returns the examples of the verb.
func (*ShellAnswerCmd) Help() string {
	return `The answer opens the shell of this one unit once. It is typed there; case, blanks and dashes do not matter.

Examples:

  gprov keys new --out support
  gprov shell answer --key support.key SN-0001/7KQ2-M4B9-D3ZT-PAXX`
}

// Run prints the answer.
func (s *ShellAnswerCmd) Run(c *Context) error { return s.print(c, false) }

// print prints the answer to a challenge that is about an erase, or about a shell.
func (s *SupportAnswer) print(c *Context, erase bool) error {
	q, err := challenge.Parse(s.Challenge)
	if err != nil {
		return &HintError{err, "compare it with what the unit shows, letter by letter"}
	}
	if about := q.Digest() != ""; about != erase {
		verb := map[bool]string{false: "gprov shell answer", true: "gprov erase answer"}[about]
		return &HintError{errors.New("this is a challenge of another kind"), "if it is meant, answer it by " + verb}
	}
	key, err := readPrivateKey(c, s.Key, s.Passphrase)
	if err != nil {
		return err
	}
	a, err := q.Answer(key)
	if err != nil {
		return err
	}
	fmt.Fprintln(c.Stdout, a)
	return nil
}
