# What follows `doit`, completed in bash and zsh: verbs, options, and models, as verb:MODEL and behind --model.
# How to switch it on: README.md, "Completion". In another project of doit's it offers what `doit list` shows.

_recipe_doit() {
    local line=${COMP_LINE:0:$COMP_POINT} cur before verb="" word="" list="" breaks="" cut=""
    cur=${line##*[[:space:]]}
    before=${line%"$cur"}
    COMPREPLY=()
    if [ "${_recipe_where-}" != "$PWD:${DOIT_FILE-}" ]; then # verbs are asked for once, models each time
        _recipe_where=$PWD:${DOIT_FILE-} _recipe_verbs=$(echo $(doit list --quiet 2>/dev/null))
    fi
    for word in $before; do
        [ "$word" = -- ] && return # a command, or an engine's own
        case " $_recipe_verbs " in *" ${word%%:*} "*) verb=${word%%:*} ;; esac
    done
    case "$word $cur" in # the word before, and this one
        -f\ * | -d\ * | --llamafile\ *) return ;; # files, as ever
        --model\ *) list=$(_recipe_models "") ;;
        *\ --model=*) list=$(_recipe_models --model=) ;;
        *\ -*) list=$(doit help "$verb" 2>/dev/null | sed -n 's/^ *\(-., \)*\(--[a-z-]*\).*/\2/p') ;;
        *\ *:*) list=$(_recipe_models "${cur%%:*}:") ;;
        *) list="$_recipe_verbs help info list" ;;
    esac
    # bash replaces only what follows the last of these; zsh has none
    case ${COMP_WORDBREAKS-} in *:*) breaks=: ;; esac
    case ${COMP_WORDBREAKS-} in *=*) breaks=$breaks= ;; esac
    [ -n "$breaks" ] && cut=${cur%"${cur##*[$breaks]}"}
    for word in $list; do
        case $word in "$cur"*) COMPREPLY+=("${word#"$cut"}") ;; esac
    done
}

_recipe_models() { # each with a prefix
    doit list --all --quiet serve 2>/dev/null | sed -n "s/^serve:\([^ ]*\).*/$1\1/p"
}

complete -o default -F _recipe_doit doit
