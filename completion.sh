# Complete `doit` in bash and zsh: verbs, options and models (verb:MODEL and --model MODEL).
# Setup: docs/environment.md, "Completion". In other doit projects it completes what `doit list` shows.

_recipe_doit() {
    local line=${COMP_LINE:0:$COMP_POINT} cur before verb="" word="" list="" breaks="" cut=""
    cur=${line##*[[:space:]]}
    before=${line%"$cur"}
    COMPREPLY=()
    # ask for verbs once per directory, for models each time
    if [ "${_recipe_where-}" != "$PWD:${DOIT_FILE-}" ]; then
        _recipe_where=$PWD:${DOIT_FILE-} _recipe_verbs=$(echo $(doit list --quiet 2>/dev/null))
    fi
    for word in $before; do
        [ "$word" = -- ] && return # a command, or arguments of the engine
        case " $_recipe_verbs " in *" ${word%%:*} "*) verb=${word%%:*} ;; esac
    done
    case "$word $cur" in # the previous word and the current one
        -f\ * | -d\ * | --llamafile\ *) return ;; # filenames, by default
        --model\ *) list=$(_recipe_models "") ;;
        *\ --model=*) list=$(_recipe_models --model=) ;;
        *\ -*) list=$(doit help "$verb" 2>/dev/null | sed -n 's/^ *\(-., \)*\(--[a-z-]*\).*/\2/p') ;;
        *\ *:*) list=$(_recipe_models "${cur%%:*}:") ;;
        *) list="$_recipe_verbs help info list" ;;
    esac
    # bash replaces only what follows the last word break; zsh has no word breaks
    case ${COMP_WORDBREAKS-} in *:*) breaks=: ;; esac
    case ${COMP_WORDBREAKS-} in *=*) breaks=$breaks= ;; esac
    [ -n "$breaks" ] && cut=${cur%"${cur##*[$breaks]}"}
    for word in $list; do
        case $word in "$cur"*) COMPREPLY+=("${word#"$cut"}") ;; esac
    done
}

# print each model with a prefix
_recipe_models() {
    doit list --all --quiet serve 2>/dev/null | sed -n "s/^serve:\([^ ]*\).*/$1\1/p"
}

complete -o default -F _recipe_doit doit
