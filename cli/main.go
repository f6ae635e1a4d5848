package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"gprovision/cli/shown"
	"gprovision/model/fault"
	"gprovision/site"
)

// Commands are the verbs of gprov.
type Commands struct {
	Image    ImageCmd    `cmd:"" help:"Build, check, inspect, extract and sign release images."`
	Keys     KeysCmd     `cmd:"" help:"Make signing keys."`
	Boot     BootCmd     `cmd:"" help:"Build and inspect boot artifacts."`
	Policy   PolicyCmd   `cmd:"" help:"Check and show policies: what boot artifacts may do."`
	Manifest ManifestCmd `cmd:"" help:"Make and check manifests."`
	Platform PlatformCmd `cmd:"" help:"Check appliance tables, identify and capture machines."`
	Stick    StickCmd    `cmd:"" help:"Write recovery sticks."`
	Shell    ShellCmd    `cmd:"" help:"Help with the recovery shell of units."`
	LCD      LCDCmd      `cmd:"" name:"lcd" help:"Try displays with keys, or be one."`
	Serve    ServeCmds   `cmd:"" help:"Run the factory server, back it up and restore it."`
	Erase    EraseCmd    `cmd:"" help:"Check certificates of erased units, and bring them to the server."`
	Vault    VaultCmd    `cmd:"" help:"Read the credentials of units with the operator's key."`
	VM       VMCmd       `cmd:"" name:"vm" help:"Run a virtual unit."`
	Demo     DemoCmd     `cmd:"" help:"Show the whole life of a unit on a virtual machine."`

	Completion CompletionCmd `cmd:"" help:"Print a script that completes what is typed in a shell."`

	Version kong.VersionFlag `help:"Print the build's revision and exit."`
}

// Help returns what --help prints below the list of verbs.
func (*Commands) Help() string {
	return `Examples:
  gprov keys new --out product
  gprov image build --rootfs root.tar --out images --build 7 --key product.key
  gprov image verify images/WIDGET.LNX.SHINY.2026-11-22.0007.upd --key product.pub
  gprov serve --data /srv/factory --interface eth1

Exit status: 0 it holds or was done; 1 it does not hold or could not be done; 2 wrong usage.`
}

// Main parses args, runs the verb and returns the exit status: 0 it holds or was done, 1 it does not hold or could not be
// done, 2 wrong usage. SIGINT and SIGTERM cancel the verb's context.
func Main(args []string, stdout, stderr io.Writer, s site.Site, version string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c := &Context{Context: ctx, Stdout: stdout, Stderr: stderr, Terminal: isTerminal(stdout), Site: s, Version: version}
	return run(c, args)
}

// exit is how kong's own help and version flags end the parse without ending the process.
type exit struct{ code int }

func run(c *Context, args []string) (code int) {
	stdout, stderr := shown.New(c.Stdout), shown.New(c.Stderr)
	c.Stdout, c.Stderr = stdout, stderr
	defer func() {
		if err := errors.Join(stdout.Flush(), stderr.Flush()); err != nil && code == 0 {
			code = 1
		}
	}()
	defer func() {
		if v := recover(); v != nil {
			e, ok := v.(exit)
			if !ok {
				panic(v)
			}
			code = e.code
		}
	}()
	k, err := parser(c, &Commands{})
	if err != nil {
		panic(err)
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	verb, err := k.Parse(args)
	if err != nil {
		about := "gprov"
		var pe *kong.ParseError
		if errors.As(err, &pe) && pe.Context != nil && pe.Context.Selected() != nil {
			about = "gprov " + pe.Context.Selected().Path()
		}
		fmt.Fprintf(c.Stderr, "gprov: %v\nhint: %s --help\n", err, about)
		return 2
	}
	if err := verb.Run(c); err != nil {
		return report(c.Stderr, err)
	}
	return 0
}

// parser makes what parses a command line into verbs.
func parser(c *Context, verbs *Commands) (*kong.Kong, error) {
	return kong.New(verbs,
		kong.Name("gprov"),
		kong.Description("Turn bare machines into appliances, and keep them recoverable for life."),
		kong.Writers(c.Stdout, c.Stderr),
		kong.Exit(func(code int) { panic(exit{code}) }),
		kong.Vars{"version": "gprov " + c.Version},
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
	)
}

// report prints err with its hint, and returns the exit status that belongs to it.
func report(w io.Writer, err error) int {
	fmt.Fprintf(w, "gprov: %s\n", shown.Lines(err.Error()))
	var h *HintError
	if errors.As(err, &h) {
		fmt.Fprintf(w, "hint: %s\n", h.Hint)
	} else if f := fault.Of(err); f != nil {
		fmt.Fprintf(w, "hint: %s\n", f.Hint)
	} else if errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintln(w, "hint: check the path")
	}
	var u *UsageError
	if errors.As(err, &u) {
		return 2
	}
	return 1
}

// isTerminal reports whether a person reads what is written to w, through whatever makes it visible.
func isTerminal(w io.Writer) bool {
	f, ok := shown.Raw(w).(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
