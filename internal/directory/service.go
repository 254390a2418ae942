package directory

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/falaj/falaj/internal/fault"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Definition is a version of a joint service as k of n states signed it. What
// its text says is for other rooms to read.
type Definition struct {
	Name    string
	Version int
	Text    []byte
}

// servicePath is where definitions stand: service/<name>/<version>.yaml.
const servicePath = "service/"

func (d Definition) target() string {
	return servicePath + d.Name + "/" + strconv.Itoa(d.Version) + ".yaml"
}

// definitions gives those among a role's targets, by name and version.
func definitions(files map[string][]byte) []Definition {
	var out []Definition
	for target, b := range files {
		name, file, ok := strings.Cut(strings.TrimPrefix(target, servicePath), "/")
		version, err := strconv.Atoi(strings.TrimSuffix(file, ".yaml"))
		if ok && err == nil && targetPath.MatchString(target) && strings.HasPrefix(target, servicePath) {
			out = append(out, Definition{name, version, b})
		}
	}
	slices.SortFunc(out, Definition.compare)
	return out
}

func (d Definition) compare(o Definition) int {
	return cmp.Or(cmp.Compare(d.Name, o.Name), cmp.Compare(d.Version, o.Version))
}

// Definitions lists the joint services' definitions by name and version.
func (v *View) Definitions() []Definition {
	if v.release == nil {
		return nil
	}
	return slices.Clone(v.release.services)
}

// Definition gives the text of a version of a joint service.
func (v *View) Definition(name string, version int) ([]byte, bool) {
	if v.release == nil {
		return nil, false
	}
	i, ok := slices.BinarySearchFunc(v.release.services, Definition{Name: name, Version: version}, Definition.compare)
	if !ok {
		return nil, false
	}
	return v.release.services[i].Text, true
}

// Definitions lists what the draft says of joint services.
func (dr *Draft) Definitions() []Definition {
	files := map[string][]byte{}
	for target, t := range dr.targets.Signed.Targets {
		files[target] = dr.files[targetFile(target, t.Hashes["sha256"])]
	}
	return definitions(files)
}

// AddDefinition puts a version of a joint service before the states. A version
// never changes: cases run by it for years.
func (dr *Draft) AddDefinition(d Definition) error {
	target := d.target()
	t, err := metadata.TargetFile().FromBytes(target, d.Text)
	if err != nil {
		return fmt.Errorf("describe %s: %w", target, err)
	}
	name := targetFile(target, t.Hashes["sha256"])
	if old := dr.targets.Signed.Targets[target]; old != nil {
		if bytes.Equal(dr.files[targetFile(target, old.Hashes["sha256"])], d.Text) {
			return nil
		}
		return fault.New(fault.DirectoryConflict, "%s@%d is there with another text: give what changed a new version", d.Name, d.Version)
	}
	targets := maps.Clone(dr.targets.Signed.Targets)
	dr.targets.Signed.Targets[target] = t
	if err := ownPaths(dr.targets, ""); err != nil {
		dr.targets.Signed.Targets = targets
		return fault.New(fault.DirectoryInvalid, "the definition of %s: %v", clip(d.Name), err)
	}
	dr.files[name] = d.Text
	return dr.seal()
}
