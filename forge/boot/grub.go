package boot

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path"
	"path/filepath"

	"gprovision/forge/tool"
	"gprovision/model/grub"
)

// grubModules are the parts of GRUB in core.img: what the configurations of model/grub use and nothing else, since a unit's disks have
// no directory of modules. None of them shows a file or the memory (cat, hexdump, minicmd, ls).
var grubModules = []string{"biosdisk", "part_msdos", "part_gpt", "ext2", "normal", "configfile", "linux", "search", "search_fs_uuid",
	"search_fs_file", "test", "true", "echo", "serial", "terminal", "sleep", "keystatus", "reboot"}

// grubRAID are the parts that read a system on an array of md with metadata of version 1.
var grubRAID = []string{"diskfilter", "mdraid1x", "raid5rec", "raid6rec"}

// grubStart is run by core.img first. GRUB knows the disk that the firmware started as hdN and not yet the partition: the
// configuration is on partition 1 of an MBR or partition 2 of a GPT, behind the BIOS boot partition. If this disk has none,
// any other that has one will do.
//
// Before anything is read, GRUB's command line and its editor are locked: they need a superuser's password, and there is none. And they are
// not come to: what follows the end of this script is GRUB's prompt, so its last command never returns, whatever a configuration did, or
// that there was none. It is not the command "normal" that reads the configuration, since that one asks for commands when it is done.
const grubStart = grub.Lock + `search.file ` + grub.ConfigPath + ` root --hint $root,msdos1 --hint $root,gpt2
set prefix=($root)/boot/grub
configfile ($root)` + grub.ConfigPath + `
echo 'gprovision: no configuration that starts anything. Trying again in 30 seconds.'
sleep 30
reboot
`

const (
	grubDir     = "usr/lib/grub/i386-pc"
	grubPackage = "grub-pc-bin"
	grubMkimage = "usr/bin/grub-mkimage"
)

// linkGRUB makes the boot loader for BIOS with the root filesystem's own grub-mkimage, which runs under that root filesystem's
// own loader and libraries. parts are grubModules and more.
func linkGRUB(ctx context.Context, log *slog.Logger, root *rootFS, link *linker, parts []string) (boot, core []byte, err error) {
	if boot, err = root.read(grubDir+"/boot.img", grubPackage); err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp("", "grub-")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(dir)
	loader, err := unpackGRUB(root, link, dir)
	if err != nil {
		return nil, nil, err
	}
	out := filepath.Join(dir, "core.img")
	args := []string{"--library-path", filepath.Join(dir, "lib"), filepath.Join(dir, "grub-mkimage"), "-O", "i386-pc",
		"-d", filepath.Join(dir, "i386-pc"), "-c", filepath.Join(dir, "start.cfg"), "-p", "/boot/grub", "-o", out}
	if err := tool.Run(ctx, log, tool.Command{Name: loader, Args: append(args, parts...)}); err != nil {
		return nil, nil, fmt.Errorf("make boot loader for BIOS: %w", err)
	}
	core, err = os.ReadFile(out)
	return boot, core, err
}

// unpackGRUB puts grub-mkimage and all that it needs into dir and returns the path of the dynamic loader.
func unpackGRUB(root *rootFS, link *linker, dir string) (loader string, err error) {
	program, err := root.read(grubMkimage, "grub-common")
	if err != nil {
		return "", err
	}
	libs, err := link.libraries(grubMkimage, program)
	if err != nil {
		return "", err
	}
	files := map[string][]byte{"grub-mkimage": program, "start.cfg": []byte(grubStart)}
	for i, l := range libs {
		name := filepath.Join("lib", path.Base(l.to))
		if i == 0 { // its loader: see linker.collect
			loader = filepath.Join(dir, name)
		}
		files[name] = l.data
	}
	if loader == "" {
		return "", fmt.Errorf("grub-mkimage of the root filesystem has no dynamic loader")
	}
	for _, n := range root.list(grubDir) {
		b, err := root.read(path.Join(grubDir, n), grubPackage)
		if err != nil {
			return "", err
		}
		files[filepath.Join("i386-pc", n)] = b
	}
	for _, sub := range []string{"lib", "i386-pc"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			return "", err
		}
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o755); err != nil {
			return "", err
		}
	}
	return loader, nil
}
